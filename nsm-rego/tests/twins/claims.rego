package nsm

default valid = false

# What a segment's token claims, if it is a token, and its claims are of the kinds they should be.
claims(segment) = found {
	[header, found, _] := io.jwt.decode(segment.token)
	is_string(header.alg)
	text_or_none(object.get(found, "sub", null))
	number_or_none(object.get(found, "exp", null))
	names_or_none(object.get(found, "aud", null))
}

text_or_none(value) { is_null(value) }
text_or_none(value) { is_string(value) }

number_or_none(value) { is_null(value) }
number_or_none(value) { is_number(value) }

names_or_none(value) { text_or_none(value) }
names_or_none(value) {
	is_array(value)
	count([name | name := value[_]; not is_string(name)]) == 0
}

# The token at a place is signed with the key in the other end's certificate.
signed(place) {
	segment := input.path_segments[place]
	claims(segment)
	io.jwt.verify_es256(segment.token, input.auth_info.certificate)
}

own_place = object.get(input, "index", 0)
