valid { not unreadable }

unreadable {
	segment := input.path_segments[_]
	not claims(segment)
}
