//! Requests for prefixes beside the addresses of a connection.

use super::validate::FieldError;
use crate::connectioncontext::ExtraPrefixRequest;
use crate::connectioncontext::ip_family::Family;

impl ExtraPrefixRequest {
    /// The address family.
    ///
    /// # Errors
    /// [`FieldError`] when it is absent or unknown.
    pub fn family(&self) -> Result<Family, FieldError> {
        let family = self.addr_family.ok_or_else(|| FieldError::new("addr_family", "", "present"))?;
        let unknown = || FieldError::new("addr_family", &family.family.to_string(), "IPV4 (0) or IPV6 (1)");
        Family::try_from(family.family).map_err(|_| unknown())
    }

    /// Checks the request: a known family, at least one required, at least as many requested, a length
    /// from 1 to 32 (IPv4) or 128 (IPv6).
    ///
    /// # Errors
    /// [`FieldError`] names the bad field.
    pub fn validate(&self) -> Result<(), FieldError> {
        let longest = match self.family()? {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        };
        let check = |valid: bool, field: &str, value: u32, expected: String| {
            if valid { Ok(()) } else { Err(FieldError::new(field, &value.to_string(), expected)) }
        };
        let (required, requested) = (self.required_number, self.requested_number);
        check(required >= 1, "required_number", required, "at least 1".into())?;
        check(requested >= required, "requested_number", requested, format!("at least required_number, {required}"))?;
        let length = self.prefix_len;
        check((1..=longest).contains(&length), "prefix_len", length, format!("from 1 to {longest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectioncontext::IpFamily;

    fn flaw(family: Option<i32>, prefix_len: u32, required_number: u32, requested_number: u32) -> String {
        let request = ExtraPrefixRequest {
            addr_family: family.map(|family| IpFamily { family }),
            prefix_len,
            required_number,
            requested_number,
        };
        request.validate().err().map(|error| error.field).unwrap_or_default()
    }

    #[test]
    fn each_rule_names_its_field() {
        assert_eq!(flaw(Some(0), 32, 1, 1), "");
        assert_eq!(flaw(Some(1), 128, 1, 2), "");
        assert_eq!(flaw(None, 32, 1, 1), "addr_family");
        assert_eq!(flaw(Some(2), 32, 1, 1), "addr_family");
        assert_eq!(flaw(Some(0), 33, 1, 1), "prefix_len");
        assert_eq!(flaw(Some(1), 0, 1, 1), "prefix_len");
        assert_eq!(flaw(Some(0), 32, 0, 1), "required_number");
        assert_eq!(flaw(Some(0), 32, 2, 1), "requested_number");
    }
}
