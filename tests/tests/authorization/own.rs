//! A policy of one's own, from a file, at a registry.

use std::fs;
use std::path::PathBuf;

use nsm_rego::Masks;
use nsm_sdk::identity::Policies;
use nsm_sdk::roles::RegistryRole;
use tonic::Code;

use crate::kit::{HERE, Log, Mesh};
use crate::tokens::{Caller, FRESH, beside, nse};

/// A directory that is gone when the test is over.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// Names that begin with `db-` are for alice; of a name's path the registry shows who registered it.
const POLICY: &str = r#"
package nsm

default valid = false

valid { not startswith(input.resource_name, "db-") }
valid {
	input.resource_id == "spiffe://example.org/alice"
	count(input.path_segments) == 2
	input.index == 1
	io.jwt.verify_es256(input.path_segments[0].token, input.auth_info.certificate)
	not other_owner
}

other_owner { input.resource_path_ids_map[input.resource_name][0] != input.resource_id }
"#;

#[tokio::test]
async fn a_file_that_a_mask_finds_is_judged_by_beside_the_stock_policies() {
    let mesh = Mesh::start().await;
    let scratch = Scratch(std::env::temp_dir().join(format!("nsm-own-policy-{}", std::process::id())));
    fs::create_dir_all(scratch.0.join("mine")).unwrap();
    fs::write(scratch.0.join("mine/names.rego"), POLICY).unwrap();
    fs::write(scratch.0.join("broken.rego"), "package nsm\nvalid = 7").unwrap();
    let registry = async |masks: &[&str]| {
        let registry_server = Masks::default().in_directory(&scratch.0).load(masks).unwrap();
        let site = mesh.site("registry").with_policies(Policies { registry_server, ..Policies::stock() });
        RegistryRole::new("registry", site).listen_on(HERE).serve().await.unwrap()
    };
    let stock = ["etc/nsm/opa/common/.*.rego", "etc/nsm/opa/registry/.*.rego", "etc/nsm/opa/server/.*.rego"];
    let log = Log::default();
    let _listening = log.listen();

    let own = registry(&[&stock[..], &["mine/.*.rego"]].concat()).await;
    let (alice, bob) = (Caller::new(&mesh, "alice", &own).await, Caller::new(&mesh, "bob", &own).await);
    log.take();
    for (who, name, code) in [
        (&alice, "db-1", Code::Ok),
        (&alice, "db-1", Code::Ok),
        (&bob, "web-1", Code::Ok),
        (&bob, "db-2", Code::PermissionDenied),
    ] {
        let answer = who.registry().register(beside(nse(name), &who.token().text, FRESH)).await;
        assert_eq!(answer.map_or_else(|status| status.code(), |_| Code::Ok), code, "{name}");
    }
    let told = log.take();
    assert!(told.contains("mine/names.rego") && told.contains("spiffe://example.org/bob"), "{told}");

    let broken = registry(&["broken.rego"]).await;
    let alice = Caller::new(&mesh, "alice", &broken).await;
    log.take();
    let error = alice.registry().register(beside(nse("db-1"), &alice.token().text, FRESH)).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(!format!("{error:?}").contains("broken.rego"), "{error:?}");
    let told = log.take();
    assert!(told.contains("ERROR") && told.contains("broken.rego"), "{told}");
}
