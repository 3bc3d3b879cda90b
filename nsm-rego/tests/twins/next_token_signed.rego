valid { signed(own_place + 1) }
