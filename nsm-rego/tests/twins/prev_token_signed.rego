valid {
	own_place > 0
	signed(own_place - 1)
}
