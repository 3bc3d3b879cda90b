valid { not torn }

torn {
	left := input.path_segments[place]
	right := input.path_segments[place + 1]
	not linked(left, right)
}

linked(left, right) {
	audience := claims(left).aud
	is_array(audience)
	subject := claims(right).sub
	is_string(subject)
	audience[_] == subject
}
