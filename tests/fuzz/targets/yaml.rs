//! Documents of network services and endpoints: what is read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsm_api::yaml;

fuzz_target!(|text: &str| {
    if let Ok(documents) = yaml::parse(text) {
        let written = yaml::to_string(&documents).expect("what was read can be written");
        assert_eq!(yaml::parse(&written).expect("what was written can be read"), documents);
    }
});
