package main

import (
	"context"
	"net"
	"net/url"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/vxlan"
	registryapi "github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/client"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/endpoint"
	"github.com/networkservicemesh/sdk/pkg/networkservice/chains/nsmgr"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/connect"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/discover"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/filtermechanisms"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms"
	kernelmechanism "github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/kernel"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/recvfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/sendfd"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanisms/vxlan/vni"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/mechanismtranslation"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/null"
	"github.com/networkservicemesh/sdk/pkg/networkservice/common/roundrobin"
	"github.com/networkservicemesh/sdk/pkg/networkservice/ipam/point2pointipam"
	registryclient "github.com/networkservicemesh/sdk/pkg/registry/chains/client"
	"github.com/networkservicemesh/sdk/pkg/registry/chains/memory"
	registryrecvfd "github.com/networkservicemesh/sdk/pkg/registry/common/recvfd"
	registrysendfd "github.com/networkservicemesh/sdk/pkg/registry/common/sendfd"
	"google.golang.org/protobuf/proto"
)

// forwarderService is the service that forwarders serve.
const forwarderService = "forwarder"

func runRegistry(ctx context.Context, s *settings, site *site, t *talk) error {
	registry := memory.NewServer(ctx, site.tokens,
		memory.WithDefaultExpiration(s.expiration),
		memory.WithDialOptions(site.dialOptions...),
		memory.WithAuthorizeNSRegistryServer(site.servicesServer()),
		memory.WithAuthorizeNSERegistryServer(site.endpointsServer()),
		memory.WithAuthorizeNSRegistryClient(site.servicesClient()),
		memory.WithAuthorizeNSERegistryClient(site.endpointsClient()),
	)
	// The reference's registries cannot receive descriptors.
	if err := site.serve(ctx, s.listen, false, registry.Register); err != nil {
		return err
	}
	t.tell(event{Event: "ready", URL: s.listen[0].String()})
	return nil
}

func runManager(ctx context.Context, s *settings, site *site, t *talk) error {
	callers, watchers := site.callers()
	manager := nsmgr.NewServer(ctx, site.tokens,
		nsmgr.WithName(s.name),
		nsmgr.WithURL(s.listen[0].String()),
		nsmgr.WithRegistry(s.upstream),
		nsmgr.WithDefaultExpiration(s.expiration),
		nsmgr.WithDialOptions(site.dialOptions...),
		nsmgr.WithDialTimeout(dialTimeout),
		nsmgr.WithForwarderServiceName(forwarderService),
		nsmgr.WithAuthorizeServer(callers),
		nsmgr.WithAuthorizeMonitorConnectionServer(watchers),
		nsmgr.WithAuthorizeNSRegistryServer(site.servicesServer()),
		nsmgr.WithAuthorizeNSERegistryServer(site.endpointsServer()),
		nsmgr.WithAuthorizeNSRegistryClient(site.servicesClient()),
		nsmgr.WithAuthorizeNSERegistryClient(site.endpointsClient()),
	)
	if err := site.serve(ctx, s.listen, true, manager.Register); err != nil {
		return err
	}
	t.tell(event{Event: "ready", URL: s.listen[0].String()})
	return nil
}

// runForwarder is a forwarder that programs no interface: it finds the endpoint and joins the two halves of the
// connection, as the SDK's sandbox does; and as real ones do it takes and sends descriptors, and offers VXLAN to other
// nodes.
func runForwarder(ctx context.Context, s *settings, site *site, t *talk) error {
	callers, watchers := site.callers()
	forwarder := endpoint.NewServer(ctx, site.tokens,
		endpoint.WithName(s.name),
		endpoint.WithAuthorizeServer(callers),
		endpoint.WithAuthorizeMonitorConnectionServer(watchers),
		endpoint.WithAdditionalFunctionality(
			recvfd.NewServer(),
			sendfd.NewServer(),
			discover.NewServer(services(ctx, s.upstream, site), endpoints(ctx, s.upstream, site, false)),
			roundrobin.NewServer(),
			mechanisms.NewServer(map[string]networkservice.NetworkServiceServer{
				kernel.MECHANISM: null.NewServer(),
				vxlan.MECHANISM:  vni.NewServer(s.tunnel),
			}),
			&observer{talk: t},
			connect.NewServer(client.NewClient(ctx,
				client.WithName(s.name),
				client.WithoutRefresh(),
				client.WithDialOptions(site.dialOptions...),
				client.WithDialTimeout(dialTimeout),
				client.WithAdditionalFunctionality(
					mechanismtranslation.NewClient(),
					kernelmechanism.NewClient(),
					&offer{vxlan.MECHANISM},
					vni.NewClient(s.tunnel),
					filtermechanisms.NewClient(),
					recvfd.NewClient(),
					sendfd.NewClient(),
				),
			)),
		),
	)
	if err := site.serve(ctx, s.listen, true, forwarder.Register); err != nil {
		return err
	}
	return join(ctx, s, site, t, &registryapi.NetworkServiceEndpoint{
		Name:                s.name,
		Url:                 s.listen[0].String(),
		NetworkServiceNames: []string{forwarderService},
		NetworkServiceLabels: map[string]*registryapi.NetworkServiceLabels{
			forwarderService: {Labels: map[string]string{"p2p": "true"}},
		},
	})
}

func runEndpoint(ctx context.Context, s *settings, site *site, t *talk) error {
	_, prefix, err := net.ParseCIDR(s.prefix)
	if err != nil {
		return err
	}
	callers, watchers := site.callers()
	nse := endpoint.NewServer(ctx, site.tokens,
		endpoint.WithName(s.name),
		endpoint.WithAuthorizeServer(callers),
		endpoint.WithAuthorizeMonitorConnectionServer(watchers),
		endpoint.WithAdditionalFunctionality(
			&observer{talk: t},
			point2pointipam.NewServer(prefix),
			mechanisms.NewServer(map[string]networkservice.NetworkServiceServer{
				kernel.MECHANISM: kernelmechanism.NewServer(),
			}),
			sendfd.NewServer(),
		),
	)
	if err := site.serve(ctx, s.listen, true, nse.Register); err != nil {
		return err
	}
	return join(ctx, s, site, t, &registryapi.NetworkServiceEndpoint{
		Name:                s.name,
		Url:                 s.listen[0].String(),
		NetworkServiceNames: []string{s.service},
		NetworkServiceLabels: map[string]*registryapi.NetworkServiceLabels{
			s.service: {Labels: map[string]string{"app": s.name}},
		},
	})
}

// join registers, and says ready. `register` registers once more, `leave` unregisters.
func join(ctx context.Context, s *settings, site *site, t *talk, nse *registryapi.NetworkServiceEndpoint) error {
	registry := endpoints(ctx, s.upstream, site, true)
	register := func(ctx context.Context, _ string, _ []string) ([]proto.Message, error) {
		registered, err := registry.Register(ctx, nse.Clone())
		return []proto.Message{registered}, err
	}
	t.on("register", register)
	t.on("leave", func(ctx context.Context, _ string, _ []string) ([]proto.Message, error) {
		_, err := registry.Unregister(ctx, nse.Clone())
		return nil, err
	})
	registered, err := register(ctx, "", nil)
	if err != nil {
		return err
	}
	t.tell(event{Event: "ready", URL: s.listen[0].String(), Messages: serialised(registered...)})
	return nil
}

// services and endpoints are the registry clients of a workload: retry, heal and refresh are in them. One that
// registers sends its socket along, one that looks up takes the sockets it is sent.
func services(ctx context.Context, manager *url.URL, site *site) registryapi.NetworkServiceRegistryClient {
	return registryclient.NewNetworkServiceRegistryClient(ctx,
		registryclient.WithClientURL(manager),
		registryclient.WithDialOptions(site.dialOptions...),
		registryclient.WithDialTimeout(dialTimeout),
		registryclient.WithAuthorizeNSRegistryClient(site.servicesClient()),
	)
}

func endpoints(
	ctx context.Context, manager *url.URL, site *site, registers bool,
) registryapi.NetworkServiceEndpointRegistryClient {
	descriptors := registryrecvfd.NewNetworkServiceEndpointRegistryClient()
	if registers {
		descriptors = registrysendfd.NewNetworkServiceEndpointRegistryClient()
	}
	return registryclient.NewNetworkServiceEndpointRegistryClient(ctx,
		registryclient.WithClientURL(manager),
		registryclient.WithDialOptions(site.dialOptions...),
		registryclient.WithDialTimeout(dialTimeout),
		registryclient.WithAuthorizeNSERegistryClient(site.endpointsClient()),
		registryclient.WithNSEAdditionalFunctionality(descriptors),
	)
}
