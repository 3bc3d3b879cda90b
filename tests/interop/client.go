package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/cls"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/common"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	registryapi "github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/excludedprefixes"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/heal"
	kernelmechanism "github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/kernel"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/sendfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/retry"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/upstreamrefresh"
	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// patience is how long a command may take, tries included.
const patience = 30 * time.Second

// workload is a client: of the manager's connections, and of its registry.
type workload struct {
	talk      *talk
	client    networkservice.NetworkServiceClient
	monitor   networkservice.MonitorConnectionClient
	services  registryapi.NetworkServiceRegistryClient
	endpoints registryapi.NetworkServiceEndpointRegistryClient

	mu  sync.Mutex
	got map[string]*networkservice.Connection // By id, as it was returned last.
}

func runClient(ctx context.Context, s *settings, site *site, t *talk) error {
	manager, err := grpc.NewClient(grpcutils.URLToTarget(s.upstream), site.dialOptions...)
	if err != nil {
		return err
	}
	w := &workload{
		talk: t,
		// As the reference's client: without a check of its data plane, which there is none of.
		client: retry.NewClient(client.NewClient(ctx,
			client.WithName(s.name),
			client.WithClientURL(s.upstream),
			client.WithDialOptions(site.dialOptions...),
			client.WithDialTimeout(dialTimeout),
			client.WithAuthorizeClient(site.answers()),
			client.WithHealClient(heal.NewClient(ctx)),
			client.WithAdditionalFunctionality(
				upstreamrefresh.NewClient(ctx),
				kernelmechanism.NewClient(),
				&clientObserver{talk: t},
				excludedprefixes.NewClient(),
				sendfd.NewClient(),
			),
		)),
		monitor:   networkservice.NewMonitorConnectionClient(manager),
		services:  services(ctx, s.upstream, site),
		endpoints: endpoints(ctx, s.upstream, site, false),
		got:       make(map[string]*networkservice.Connection),
	}
	t.on("request", w.request)
	t.on("refresh", w.refresh)
	t.on("close", w.close)
	t.on("monitor", w.watchConnection)
	t.on("register-service", w.registerService)
	t.on("find-service", w.findService)
	t.on("find-endpoints", w.findEndpoints)
	t.on("watch-endpoints", w.watchEndpoints)
	t.tell(event{Event: "ready"})
	return nil
}

func (w *workload) ask(
	ctx context.Context, connection *networkservice.Connection,
) ([]proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	got, err := w.client.Request(ctx, &networkservice.NetworkServiceRequest{
		Connection: connection,
		// Also at a refresh: the SDK's client keeps those of the last request, for when it heals.
		MechanismPreferences: []*networkservice.Mechanism{{
			Cls:        cls.LOCAL,
			Type:       kernel.MECHANISM,
			Parameters: map[string]string{common.InterfaceNameKey: "nsm-1"},
		}},
	})
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got[got.GetId()] = got.Clone()
	return []proto.Message{got}, nil
}

func (w *workload) last(id string) (*networkservice.Connection, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	connection := w.got[id]
	if connection == nil {
		return nil, fmt.Errorf("no connection %q", id)
	}
	return connection.Clone(), nil
}

// request ID SERVICE
func (w *workload) request(ctx context.Context, _ string, args []string) ([]proto.Message, error) {
	return w.ask(ctx, &networkservice.Connection{
		Id:             args[0],
		NetworkService: args[1],
		Labels:         map[string]string{"app": "interop"},
		Context:        &networkservice.ConnectionContext{},
	})
}

// refresh ID: asks again with what came back last.
func (w *workload) refresh(ctx context.Context, _ string, args []string) ([]proto.Message, error) {
	connection, err := w.last(args[0])
	if err != nil {
		return nil, err
	}
	return w.ask(ctx, connection)
}

// close ID
func (w *workload) close(ctx context.Context, _ string, args []string) ([]proto.Message, error) {
	connection, err := w.last(args[0])
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = w.client.Close(ctx, connection)
	return nil, err
}

// monitor SEGMENT-ID SEGMENT-NAME: what the manager tells about a connection, until the process ends.
func (w *workload) watchConnection(ctx context.Context, number string, args []string) ([]proto.Message, error) {
	stream, err := w.monitor.MonitorConnections(ctx, &networkservice.MonitorScopeSelector{
		PathSegments: []*networkservice.PathSegment{{Id: args[0], Name: args[1]}},
	})
	if err != nil {
		return nil, err
	}
	for {
		seen, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		w.talk.tell(event{Event: "seen", To: number, Messages: serialised(seen)})
	}
}

// register-service NAME
func (w *workload) registerService(ctx context.Context, _ string, args []string) ([]proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	service, err := w.services.Register(ctx, &registryapi.NetworkService{Name: args[0]})
	return []proto.Message{service}, err
}

// find-service NAME
func (w *workload) findService(ctx context.Context, _ string, args []string) ([]proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := w.services.Find(ctx, &registryapi.NetworkServiceQuery{
		NetworkService: &registryapi.NetworkService{Name: args[0]},
	})
	if err != nil {
		return nil, err
	}
	var found []proto.Message
	for _, service := range registryapi.ReadNetworkServiceList(stream) {
		found = append(found, service)
	}
	return found, nil
}

func serving(service string) *registryapi.NetworkServiceEndpoint {
	return &registryapi.NetworkServiceEndpoint{NetworkServiceNames: []string{service}}
}

// find-endpoints SERVICE
func (w *workload) findEndpoints(ctx context.Context, _ string, args []string) ([]proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := w.endpoints.Find(ctx, &registryapi.NetworkServiceEndpointQuery{
		NetworkServiceEndpoint: serving(args[0]),
	})
	if err != nil {
		return nil, err
	}
	var found []proto.Message
	for _, nse := range registryapi.ReadNetworkServiceEndpointList(stream) {
		found = append(found, nse)
	}
	return found, nil
}

// watch-endpoints SERVICE: changes of the endpoints of a service, until the process ends.
func (w *workload) watchEndpoints(ctx context.Context, number string, args []string) ([]proto.Message, error) {
	stream, err := w.endpoints.Find(ctx, &registryapi.NetworkServiceEndpointQuery{
		NetworkServiceEndpoint: serving(args[0]),
		Watch:                  true,
	})
	if err != nil {
		return nil, err
	}
	for {
		seen, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		w.talk.tell(event{
			Event:    "seen",
			To:       number,
			Messages: serialised(seen.GetNetworkServiceEndpoint()),
			Deleted:  seen.GetDeleted(),
		})
	}
}
