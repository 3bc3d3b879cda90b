package gosdk

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/edwarnicke/grpcfd"
	"github.com/google/uuid"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/cls"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	registryapi "github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/nsmgr"
	"github.com/networkservicemesh/sdk/pkg/registry/chains/memory"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"github.com/networkservicemesh/sdk/pkg/tools/log"
	"github.com/networkservicemesh/sdk/pkg/tools/log/logruslogger"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
	"github.com/networkservicemesh/sdk/pkg/tools/token"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	service = "bench-service"
	// Time for goroutines of finished requests, or of a stopped mesh, to end.
	settleTime = 500 * time.Millisecond
)

// mesh is a registry, a manager and a forwarder stand-in, each serving gRPC on
// a unix socket of its own. Endpoints and clients are added by the measurement.
type mesh struct {
	t    *testing.T
	ctx  context.Context
	dir  string
	node *sandbox.Node
}

// withMesh runs one measurement on a fresh mesh and stops the mesh after it, so
// that no measurement pays for the connections of another.
func withMesh(t *testing.T, measure func(*mesh)) {
	// Not t.TempDir(): a unix socket's path may have 107 bytes at most.
	dir, err := os.MkdirTemp("", "nsm-bench-")
	require.NoError(t, err)
	defer func() { _ = os.RemoveAll(dir) }()

	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(context.Background())
	defer func() {
		cancel()
		waitForGoroutines(before)
	}()
	m := &mesh{t: t, ctx: log.WithLog(ctx, logruslogger.New(ctx)), dir: dir}

	registryURL := m.socket("registry")
	m.serveRegistry(registryURL)

	domain := sandbox.NewBuilder(m.ctx, t).
		SetRegistrySupplier(nil). // The sandbox's own registry listens on TCP only.
		SetRegistryProxySupplier(nil).
		SetNSMgrProxySupplier(nil).
		SetNodeSetup(func(ctx context.Context, node *sandbox.Node, _ int) {
			m.setUpNode(ctx, node, registryURL)
		}).
		Build()
	m.node = domain.Nodes[0]

	_, err = domain.NewNSRegistryClient(m.ctx, sandbox.GenerateTestToken).
		Register(m.ctx, &registryapi.NetworkService{Name: service})
	require.NoError(t, err)

	measure(m)
}

func (m *mesh) socket(name string) *url.URL {
	return &url.URL{Scheme: "unix", Path: filepath.Join(m.dir, name+".sock")}
}

func (m *mesh) serveRegistry(on *url.URL) {
	server := grpc.NewServer(grpc.Creds(grpcfd.TransportCredentials(insecure.NewCredentials())))
	memory.NewServer(m.ctx, sandbox.GenerateTestToken,
		memory.WithDefaultExpiration(time.Minute),
		memory.WithDialOptions(sandbox.DialOptions()...),
	).Register(server)

	// ListenAndServe has bound the socket, or left the reason in the channel,
	// when it returns; stopping the context is the only later way out.
	failed := grpcutils.ListenAndServe(m.ctx, on, server)
	select {
	case err := <-failed:
		require.NoError(m.t, err, "registry cannot listen on %v", on)
	default:
	}
}

func (m *mesh) setUpNode(ctx context.Context, node *sandbox.Node, registryURL *url.URL) {
	managerURL := m.socket("manager")
	manager := func(ctx context.Context, tokens token.GeneratorFunc, options ...nsmgr.Option) nsmgr.Nsmgr {
		return nsmgr.NewServer(ctx, tokens, append(options,
			nsmgr.WithRegistry(sandbox.CloneURL(registryURL)),
			nsmgr.WithURL(managerURL.String()),
		)...)
	}
	node.NewNSMgr(ctx, "manager", managerURL, sandbox.GenerateTestToken, manager)
	node.NewForwarder(ctx, &registryapi.NetworkServiceEndpoint{
		Name:                "forwarder",
		Url:                 m.socket("forwarder").String(),
		NetworkServiceNames: []string{"forwarder"},
		NetworkServiceLabels: map[string]*registryapi.NetworkServiceLabels{
			"forwarder": {Labels: map[string]string{"p2p": "true"}},
		},
	}, sandbox.GenerateTestToken)
}

// startEndpoint serves and registers an endpoint with the plain endpoint chain
// and returns the name it got from the registry and the function that stops its
// server. It stays registered then, as after a crash.
func (m *mesh) startEndpoint(name string) (registeredAs string, stop func()) {
	nse := &registryapi.NetworkServiceEndpoint{
		Name:                name,
		Url:                 m.socket(name).String(),
		NetworkServiceNames: []string{service},
	}
	entry := m.node.NewEndpoint(m.ctx, nse, sandbox.GenerateTestToken)
	return nse.Name, entry.Cancel
}

// newClient is the SDK's ordinary initiating client: retry around the client
// chain with refresh and heal.
func (m *mesh) newClient(extra ...networkservice.NetworkServiceClient) networkservice.NetworkServiceClient {
	return m.node.NewClient(m.ctx, sandbox.GenerateTestToken, client.WithAdditionalFunctionality(extra...))
}

func newRequest() *networkservice.NetworkServiceRequest {
	return &networkservice.NetworkServiceRequest{
		MechanismPreferences: []*networkservice.Mechanism{{Cls: cls.LOCAL, Type: kernel.MECHANISM}},
		Connection: &networkservice.Connection{
			Id:             uuid.NewString(),
			NetworkService: service,
			Context:        &networkservice.ConnectionContext{},
		},
	}
}

// waitForGoroutines returns when no more than limit are left, or when their
// number has stopped falling.
func waitForGoroutines(limit int) {
	last := runtime.NumGoroutine()
	for last > limit {
		time.Sleep(settleTime)
		now := runtime.NumGoroutine()
		if now >= last {
			return
		}
		last = now
	}
}
