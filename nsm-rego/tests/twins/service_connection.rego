valid {
	own := {id | id := input.spiffe_id_connection_map[input.service_spiffe_id][_]}
	chosen := {id | id := input.selector_connection_ids[_]}
	count(own & chosen) > 0
}
