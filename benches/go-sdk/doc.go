// Package gosdk measures the Go reference SDK of Network Service Mesh, so that
// our own figures can be set beside it. Everything is in the tests, because the
// SDK's in-process mesh (pkg/tools/sandbox) needs a *testing.T. README.md says
// what each figure means.
package gosdk
