//! The headers beside each registry call: whatever they hold, reading them ends in a path or an error, and a path that was
//! read is written and read again as the same one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsm_chain::grpc::headers::{parse_rfc3339, receive_path, receive_token, rfc3339, send_path};
use tonic::metadata::MetadataMap;

fuzz_target!(|data: &[u8]| {
    let mut headers = http::HeaderMap::new();
    // Lines are values of the same header: the last one counts.
    for line in data.split(|&byte| byte == b'\n') {
        let Ok(value) = http::HeaderValue::from_bytes(line) else { return };
        headers.append("path", value.clone());
        headers.insert("nsm-client-token", http::HeaderValue::from_static("token"));
        headers.insert("nsm-client-token-expires", value);
    }
    let metadata = MetadataMap::from_headers(headers);
    if let Ok(Some(path)) = receive_path(&metadata) {
        let mut again = MetadataMap::new();
        if send_path(&mut again, &path).is_ok() {
            assert_eq!(receive_path(&again).ok().flatten(), Some(path));
        }
    }
    if let Ok(Some(token)) = receive_token(&metadata) {
        assert_eq!(parse_rfc3339(&rfc3339(token.expires)), Some(token.expires));
    }
});
