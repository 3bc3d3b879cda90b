//! URLs of files, as `inodeURL` and endpoints' addresses have them: what is read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsm_api::mechanism::FileUrl;
use nsm_sdk::transport::Address;

fuzz_target!(|text: &str| {
    if let Ok(url) = text.parse::<FileUrl>() {
        assert_eq!(url.to_string().parse(), Ok(url));
    }
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
});
