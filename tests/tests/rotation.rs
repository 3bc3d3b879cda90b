//! The short form of the soak: see `src/bin/rotation`.

use std::process::Command;

#[test]
fn nothing_fails_while_all_identities_rotate_in_a_mesh_of_processes() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_rotation")).args(["--every", "2", "--seconds", "15"]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let last = out.lines().last().unwrap_or_default();
    assert!(last.contains(" requests, 0 failed, "), "{last}");
}
