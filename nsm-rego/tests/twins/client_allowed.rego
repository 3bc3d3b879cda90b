valid { not taken }

valid { input.resource_path_ids_map[input.resource_name][0] == input.resource_id }

taken { input.resource_path_ids_map[input.resource_name] }
