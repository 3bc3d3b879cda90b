package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/edwarnicke/genericsync"
	"github.com/edwarnicke/grpcfd"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/authorize"
	registryauthorize "github.com/networkservicemesh/sdk/pkg/registry/common/authorize"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	authmonitor "github.com/networkservicemesh/sdk/pkg/tools/monitorconnection/authorize"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
	"github.com/networkservicemesh/sdk/pkg/tools/spiffejwt"
	"github.com/networkservicemesh/sdk/pkg/tools/token"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// dialTimeout is what the commands of the reference give a dial by default, doubled twice for a busy machine.
const dialTimeout = 3 * time.Second

// site is who a role is: its credentials, its tokens and its policies, as the reference's commands set them.
type site struct {
	tokens      token.GeneratorFunc
	dialOptions []grpc.DialOption
	creds       credentials.TransportCredentials
	stock       bool // The stock policies are on.
	close       func()
}

func newSite(ctx context.Context, s *settings) (*site, error) {
	switch s.security {
	case "insecure":
		tokens := sandbox.GenerateExpiringToken(s.tokenLife)
		return &site{
			tokens:      tokens,
			dialOptions: sandbox.DialOptions(sandbox.WithTokenGenerator(tokens)),
			creds:       insecure.NewCredentials(),
			close:       func() {},
		}, nil
	case "mtls":
		return mtls(ctx, s)
	default:
		return nil, fmt.Errorf("no security %q", s.security)
	}
}

func mtls(ctx context.Context, s *settings) (*site, error) {
	svids, bundles, closeSource, err := identity(ctx, s)
	if err != nil {
		return nil, err
	}
	client := tlsconfig.MTLSClientConfig(svids, bundles, tlsconfig.AuthorizeAny())
	client.MinVersion = tls.VersionTLS12
	server := tlsconfig.MTLSServerConfig(svids, bundles, tlsconfig.AuthorizeAny())
	server.MinVersion = tls.VersionTLS12
	tokens := spiffejwt.TokenGeneratorFunc(svids, s.tokenLife)
	return &site{
		tokens: tokens,
		dialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(grpcfd.TransportCredentials(credentials.NewTLS(client))),
			grpc.WithDefaultCallOptions(grpc.PerRPCCredentials(token.NewPerRPCCredentials(tokens))),
			grpcfd.WithChainStreamInterceptor(),
			grpcfd.WithChainUnaryInterceptor(),
		},
		creds: credentials.NewTLS(server),
		stock: true,
		close: closeSource,
	}, nil
}

// identity is that of the agent at SPIFFE_ENDPOINT_SOCKET, or of the files.
func identity(ctx context.Context, s *settings) (x509svid.Source, x509bundle.Source, func(), error) {
	if s.svid == "" {
		source, err := workloadapi.NewX509Source(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		return source, source, func() { _ = source.Close() }, nil
	}
	svid, err := x509svid.Load(filepath.Join(s.svid, "svid.pem"), filepath.Join(s.svid, "key.pem"))
	if err != nil {
		return nil, nil, nil, err
	}
	bundle, err := x509bundle.Load(svid.ID.TrustDomain(), filepath.Join(s.svid, "bundle.pem"))
	if err != nil {
		return nil, nil, nil, err
	}
	return svid, bundle, func() {}, nil
}

// serve listens, and returns when the role can be reached.
func (s *site) serve(ctx context.Context, on []*url.URL, receives bool, register func(*grpc.Server)) error {
	creds := s.creds
	if receives {
		creds = grpcfd.TransportCredentials(creds)
	}
	server := grpc.NewServer(grpc.Creds(creds))
	register(server)
	for _, one := range on {
		failed := grpcutils.ListenAndServe(ctx, one, server)
		select {
		case err := <-failed:
			return err
		default:
		}
	}
	return nil
}

// callers judges who asks for connections, and who watches them: the second without a policy, as in the commands.
func (s *site) callers() (networkservice.NetworkServiceServer, networkservice.MonitorConnectionServer) {
	if !s.stock {
		return authorize.NewServer(authorize.Any()), authmonitor.NewMonitorConnectionServer(authmonitor.Any())
	}
	ids := &genericsync.Map[spiffeid.ID, *genericsync.Map[string, struct{}]]{}
	return authorize.NewServer(authorize.WithSpiffeIDConnectionMap(ids)),
		authmonitor.NewMonitorConnectionServer(authmonitor.WithSpiffeIDConnectionMap(ids))
}

// answers judges who answers a request for a connection.
func (s *site) answers() networkservice.NetworkServiceClient {
	if !s.stock {
		return authorize.NewClient(authorize.Any())
	}
	return authorize.NewClient()
}

// registering are the policies for registries, of one side.
func (s *site) registering(side string) registryauthorize.Option {
	if !s.stock {
		return registryauthorize.Any()
	}
	return registryauthorize.WithPolicies(
		"etc/nsm/opa/common/.*.rego",
		"etc/nsm/opa/registry/.*.rego",
		"etc/nsm/opa/"+side+"/.*.rego",
	)
}

func (s *site) servicesServer() registry.NetworkServiceRegistryServer {
	return registryauthorize.NewNetworkServiceRegistryServer(s.registering("server"))
}

func (s *site) servicesClient() registry.NetworkServiceRegistryClient {
	return registryauthorize.NewNetworkServiceRegistryClient(s.registering("client"))
}

func (s *site) endpointsServer() registry.NetworkServiceEndpointRegistryServer {
	return registryauthorize.NewNetworkServiceEndpointRegistryServer(s.registering("server"))
}

func (s *site) endpointsClient() registry.NetworkServiceEndpointRegistryClient {
	return registryauthorize.NewNetworkServiceEndpointRegistryClient(s.registering("client"))
}
