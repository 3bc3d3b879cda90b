//! Service URLs, alone and in lists: what is read is written and read again as the same, and gives a request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsm_api::ServiceUrl;

fuzz_target!(|text: &str| {
    if let Ok(url) = text.parse::<ServiceUrl>() {
        let request = url.to_request("id");
        assert_eq!(request.connection.map(|connection| connection.labels).as_ref(), Some(&url.labels));
        assert_eq!(url.to_string().parse(), Ok(url));
    }
    if let Ok(urls) = ServiceUrl::parse_list(text) {
        let list = urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(ServiceUrl::parse_list(&list), Ok(urls));
    }
});
