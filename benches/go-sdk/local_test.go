package gosdk

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/google/uuid"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	registryapi "github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/endpoint"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/null"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/chain"
	"github.com/networkservicemesh/sdk/pkg/networkservice/ipam/point2pointipam"
	"github.com/networkservicemesh/sdk/pkg/registry/common/memory"
	registryadapters "github.com/networkservicemesh/sdk/pkg/registry/core/adapters"
	"github.com/networkservicemesh/sdk/pkg/tools/sandbox"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	emptyElements       = 50
	registryEndpoints   = 10_000
	endpointsPerService = 10
)

// arriving is the request as it reaches an endpoint: the path holds client,
// manager and forwarder, each with its token, and the index is the forwarder's.
func arriving(t require.TestingT) *networkservice.NetworkServiceRequest {
	request := newRequest()
	path := &networkservice.Path{Index: 2}
	for _, name := range []string{"client", "manager", "forwarder"} {
		path.PathSegments = append(path.PathSegments, segment(t, name))
	}
	request.Connection.Path = path
	request.Connection.Id = path.PathSegments[path.Index].Id
	return request
}

func segment(t require.TestingT, name string) *networkservice.PathSegment {
	tok, expires, err := sandbox.GenerateTestToken(nil)
	require.NoError(t, err)
	return &networkservice.PathSegment{
		Name:    name,
		Id:      uuid.NewString(),
		Token:   tok,
		Expires: timestamppb.New(expires),
	}
}

// measureEndpointChain calls the endpoint's chain in process: without gRPC, so
// without a peer in the context.
func measureEndpointChain(out *result) {
	refresh := benchmarkEndpoint(false)
	out.EndpointChainNs = float64(refresh.NsPerOp())
	out.EndpointChainAllocs = float64(refresh.AllocsPerOp())
	out.EndpointChainNewIDNs = float64(benchmarkEndpoint(true).NsPerOp())

	_, pool, _ := net.ParseCIDR("172.16.0.0/16")
	withIPAM := benchmarkEndpoint(false,
		mechanisms.NewServer(map[string]networkservice.NetworkServiceServer{kernel.MECHANISM: null.NewServer()}),
		point2pointipam.NewServer(pool),
	)
	out.EndpointChainIPAMNs = float64(withIPAM.NsPerOp())
}

// benchmarkEndpoint requests one connection again and again, or a new one each
// time, of an endpoint with the given elements behind those every endpoint has.
func benchmarkEndpoint(newID bool, elements ...networkservice.NetworkServiceServer) testing.BenchmarkResult {
	return testing.Benchmark(func(b *testing.B) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		server := endpoint.NewServer(ctx, sandbox.GenerateTestToken,
			endpoint.WithName("endpoint"),
			endpoint.WithAdditionalFunctionality(elements...),
		)
		template := arriving(b)
		if !newID {
			// The answer's path names the endpoint's segment: asked with it, the endpoint keeps its id.
			conn, err := server.Request(ctx, template.Clone())
			require.NoError(b, err)
			template.Connection.Path = conn.GetPath().Clone()
		}
		b.ReportAllocs()
		for b.Loop() {
			// The chain changes the request it is given, as if it had come from the wire.
			request := template.Clone()
			if newID {
				last := request.Connection.Path.PathSegments[request.Connection.Path.Index]
				last.Id = uuid.NewString()
				request.Connection.Id = last.Id
			}
			_, err := server.Request(ctx, request)
			require.NoError(b, err)
		}
	})
}

// measureFind asks the memory registry element, in process, for the ten
// endpoints of one service among ten thousand, and reads the whole answer.
func measureFind(t *testing.T, out *result) {
	ctx := context.Background()
	server := memory.NewNetworkServiceEndpointRegistryServer()
	for i := range registryEndpoints {
		_, err := server.Register(ctx, &registryapi.NetworkServiceEndpoint{
			Name:                fmt.Sprintf("nse-%d", i),
			Url:                 fmt.Sprintf("tcp://10.0.%d.%d:5000", i/250, i%250),
			NetworkServiceNames: []string{fmt.Sprintf("service-%d", i/endpointsPerService)},
		})
		require.NoError(t, err)
	}

	registry := registryadapters.NetworkServiceEndpointServerToClient(server)
	run := testing.Benchmark(func(b *testing.B) {
		i := 0
		for b.Loop() {
			// A different service each time, so that no answer can be kept.
			name := fmt.Sprintf("service-%d", i%(registryEndpoints/endpointsPerService))
			i++
			stream, err := registry.Find(ctx, &registryapi.NetworkServiceEndpointQuery{
				NetworkServiceEndpoint: &registryapi.NetworkServiceEndpoint{NetworkServiceNames: []string{name}},
			})
			require.NoError(b, err)
			require.Len(b, registryapi.ReadNetworkServiceEndpointList(stream), endpointsPerService)
		}
	})
	out.Find10Of10kNs = float64(run.NsPerOp())
}

// measureElements sends one request through 50 elements that only call on.
func measureElements(out *result) {
	elements := make([]networkservice.NetworkServiceServer, emptyElements)
	for i := range elements {
		elements[i] = null.NewServer()
	}
	server := chain.NewNetworkServiceServer(elements...)
	request := newRequest()
	run := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_, err := server.Request(context.Background(), request)
			require.NoError(b, err)
		}
	})
	out.Elements50Ns = float64(run.NsPerOp())
}
