valid { not over }

over {
	segment := input.path_segments[_]
	not alive(segment)
}

alive(segment) {
	end := claims(segment).exp
	is_number(end)
	time.now_ns() / 1000000000 < end
}
