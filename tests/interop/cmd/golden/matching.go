package main

import (
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/networkservicemesh/sdk/pkg/tools/matchutils"
)

// matchingCases are what finds what.
type matchingCases struct {
	Subsets    []subsetCase  `json:"subsets"`
	Endpoints  []encoded     `json:"endpoints"`
	Services   []serviceCase `json:"services"`
	NSQueries  []queryCase   `json:"network_service_queries"`
	NSEQueries []queryCase   `json:"endpoint_queries"`
	Selectors  []queryCase   `json:"selectors"`
}

func matching() (all matchingCases, err error) {
	all.Subsets = subsets()
	if all.Endpoints, all.Services, err = services(); err != nil {
		return all, err
	}
	if all.NSQueries, err = networkServiceQueries(); err != nil {
		return all, err
	}
	if all.NSEQueries, err = endpointQueries(); err != nil {
		return all, err
	}
	all.Selectors, err = selectors()
	return all, err
}

type labels = map[string]string

// subsetCase says whether labels satisfy a selector whose values may be templates over the client's labels.
type subsetCase struct {
	Labels   labels `json:"labels"`
	Selector labels `json:"selector"`
	Client   labels `json:"client"`
	Result   bool   `json:"result"`
}

func subsets() (all []subsetCase) {
	client := labels{"nodeName": "node-1", "app.kubernetes.io/name": "web", "empty": "", "_x1": "y"}
	add := func(has, wanted labels) {
		all = append(all, subsetCase{has, wanted, client, matchutils.IsSubset(has, wanted, client)})
	}
	add(labels{}, labels{})
	add(labels{"a": "1"}, labels{})
	add(labels{"a": "1", "b": "2"}, labels{"a": "1"})
	add(labels{"a": "1"}, labels{"a": "2"})
	add(labels{"a": "1"}, labels{"b": "1"})
	add(labels{"a": "1"}, labels{"a": "1", "b": ""})
	add(labels{"a": "1", "b": "2"}, labels{"c": ""})
	// A template, and the label that a candidate has.
	for _, pair := range [][2]string{
		{"{{.nodeName}}", "node-1"},
		{"{{.nodeName}}", "node-2"},
		{"{{.nodeName}}", "{{.nodeName}}"},
		{"{{ .nodeName }}", "node-1"},
		{"on {{.nodeName}} of {{._x1}}", "on node-1 of y"},
		{"{{.absent}}", "<no value>"},
		{"{{.absent}}", ""},
		{"{{.empty}}", ""},
		{`{{index . "app.kubernetes.io/name"}}`, "web"},
		{"{{index . `nodeName`}}", "node-1"},
		{`{{index . "absent"}}`, ""},
		{"{{.app.kubernetes.io/name}}", "web"},
		{"{{.app.kubernetes.io/name}}", "{{.app.kubernetes.io/name}}"},
		{"{{.nodeName", "{{.nodeName"},
		{"{{.nodeName}}{{", "{{.nodeName}}{{"},
		{"nodeName}}", "nodeName}}"},
		{"{{}}", "{{}}"},
		{"{{- .nodeName -}} ", "node-1"},
		{"{{/* nothing */}}x", "x"},
		{`{{"text"}}`, "text"},
		{"{{if .nodeName}}yes{{end}}", "yes"},
		{`{{printf "%s!" .nodeName}}`, "node-1!"},
		{"{{.nodeName | len}}", "6"},
	} {
		add(labels{"a": pair[1]}, labels{"a": pair[0]})
	}
	return all
}

// serviceCase has, for each client, the names of the endpoints that it gets of a network service.
type serviceCase struct {
	Service encoded      `json:"service"`
	Clients []clientCase `json:"clients"`
}

type clientCase struct {
	Labels labels   `json:"labels"`
	Result []string `json:"result"`
}

func services() (candidates []encoded, all []serviceCase, err error) {
	named := func(name string, has labels) *registry.NetworkServiceEndpoint {
		return &registry.NetworkServiceEndpoint{
			Name:                 name,
			NetworkServiceNames:  []string{"ns"},
			NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{"ns": {Labels: has}},
		}
	}
	endpoints := []*registry.NetworkServiceEndpoint{
		named("firewall", labels{"app": "firewall"}),
		named("gateway", labels{"app": "gateway", "nodeName": "node-1"}),
		named("gateway-2", labels{"app": "gateway", "nodeName": "node-2"}),
		{Name: "bare", NetworkServiceNames: []string{"ns"}},
	}
	to := func(selectors ...labels) (routes []*registry.Destination) {
		for _, selector := range selectors {
			routes = append(routes, &registry.Destination{DestinationSelector: selector})
		}
		return routes
	}
	fromFirewall := &registry.Match{SourceSelector: labels{"app": "firewall"}, Routes: to(labels{"app": "gateway"})}
	onNode := &registry.Match{Routes: to(labels{"app": "gateway", "nodeName": "{{.nodeName}}"})}
	onNodeElse := &registry.Match{Routes: onNode.Routes, Fallthrough: true}
	toFirewall := &registry.Match{Routes: to(labels{"app": "firewall"})}
	forwarders := &registry.Metadata{Labels: labels{"p2p": "true"}}
	for _, matches := range [][]*registry.Match{
		nil,
		{fromFirewall},
		{fromFirewall, toFirewall},
		{onNode},
		{onNode, toFirewall},
		{onNodeElse, toFirewall},
		{{Routes: to(labels{})}},
		{{}},
		{{Fallthrough: true}},
		{{}, toFirewall},
		{{Metadata: forwarders}},
		{{Metadata: forwarders, Fallthrough: true}, toFirewall},
		{{Metadata: forwarders, Routes: to(labels{"app": "none"})}},
		{{SourceSelector: labels{"nodeName": "{{.nodeName}}"}, Routes: to(labels{"app": "firewall"})}},
		{{Routes: to(labels{"app": "gateway"}, labels{"app": "firewall"})}},
		{{Routes: to(labels{"app": "gateway"}, labels{"nodeName": "node-1"}, labels{})}},
	} {
		service := &registry.NetworkService{Name: "ns", Matches: matches}
		one := serviceCase{}
		if one.Service, err = encode("", service); err != nil {
			return nil, nil, err
		}
		for _, client := range []labels{{}, {"app": "firewall"}, {"nodeName": "node-1"}, {"nodeName": "node-3"}} {
			result := []string{}
			for _, endpoint := range matchutils.MatchEndpoint(client, service, endpoints...) {
				result = append(result, endpoint.Name)
			}
			one.Clients = append(one.Clients, clientCase{client, result})
		}
		all = append(all, one)
	}
	for _, endpoint := range endpoints {
		candidate, err := encode("", endpoint)
		if err != nil {
			return nil, nil, err
		}
		candidates = append(candidates, candidate)
	}
	return candidates, all, nil
}

// queryCase says whether what is asked for is what there is.
type queryCase struct {
	Query  encoded `json:"query"`
	Record encoded `json:"record"`
	Result bool    `json:"result"`
}

func networkServiceQueries() (all []queryCase, err error) {
	for _, query := range []*registry.NetworkService{
		{}, {Name: "secure-ns"}, {Name: "secure"}, {Payload: "IP"}, {Payload: "ETHERNET"}, {Matches: service().Matches},
		{Matches: service().Matches[:1]}, {PathIds: []string{"other"}}, service(),
	} {
		one := queryCase{Result: matchutils.MatchNetworkServices(query, service())}
		if one.Query, err = encode("", query); err == nil {
			one.Record, err = encode("", service())
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func endpointQueries() (all []queryCase, err error) {
	later, sooner := moment(), moment()
	later.Nanos = 1
	sooner.Seconds--
	for _, query := range []*registry.NetworkServiceEndpoint{
		{}, {Name: "nse-1@my.domain"}, {Name: "nse-1"}, {Url: "inode://4/"}, {Url: "inode://5/"},
		{NetworkServiceNames: []string{"other-ns"}}, {NetworkServiceNames: []string{"other-ns", "secure-ns", "other-ns"}},
		{NetworkServiceNames: []string{"other-ns", "third-ns"}}, {ExpirationTime: later}, {ExpirationTime: sooner},
		{InitialRegistrationTime: sooner}, {PathIds: []string{"other"}},
		{NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{"secure-ns": {Labels: labels{"app": "firewall"}}}},
		{NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{"secure-ns": {Labels: labels{"app": "other"}}}},
		{NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{"secure-ns": {}, "other-ns": {}}},
		{NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{"third-ns": {}}},
		{NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{"other-ns": {Labels: labels{"a": ""}}}},
		endpoint(),
	} {
		one := queryCase{Result: matchutils.MatchNetworkServiceEndpoints(query, endpoint())}
		if one.Query, err = encode("", query); err == nil {
			one.Record, err = encode("", endpoint())
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func selectors() (all []queryCase, err error) {
	segment := func(name, id, token string) *networkservice.PathSegment {
		return &networkservice.PathSegment{Name: name, Id: id, Token: token}
	}
	monitored := &networkservice.Connection{
		Id: "2", NetworkService: "ns", Path: &networkservice.Path{Index: 1, PathSegments: []*networkservice.PathSegment{
			segment("nsc", "1", "a"), segment("nsmgr", "2", "b"), segment("forwarder", "3", "c"), segment("nse", "4", "d"),
		}},
	}
	any := segment("", "", "")
	for _, record := range []*networkservice.Connection{monitored, {Id: "bare"}} {
		for _, query := range []*networkservice.MonitorScopeSelector{
			{},
			{NetworkServices: []string{"ns"}}, {NetworkServices: []string{"other"}}, {NetworkServices: []string{"other", "ns"}},
			{NetworkServices: []string{""}},
			{PathSegments: []*networkservice.PathSegment{segment("nsmgr", "", "")}},
			{PathSegments: []*networkservice.PathSegment{segment("", "2", "")}},
			{PathSegments: []*networkservice.PathSegment{segment("", "", "b")}},
			{PathSegments: []*networkservice.PathSegment{segment("nsmgr", "3", "")}},
			{PathSegments: []*networkservice.PathSegment{segment("nsmgr", "", ""), segment("forwarder", "", "")}},
			{PathSegments: []*networkservice.PathSegment{segment("nsmgr", "", ""), segment("nse", "", "")}},
			{PathSegments: []*networkservice.PathSegment{segment("nsmgr", "", ""), any, segment("nse", "", "")}},
			{PathSegments: []*networkservice.PathSegment{segment("nse", "", ""), any}},
			{PathSegments: []*networkservice.PathSegment{any}},
			{PathSegments: []*networkservice.PathSegment{any, any, any, any, any}},
			{PathSegments: []*networkservice.PathSegment{any}, NetworkServices: []string{"other"}},
		} {
			one := queryCase{Result: record.MatchesMonitorScopeSelector(query)}
			if one.Query, err = encode("", query); err == nil {
				one.Record, err = encode("", record)
			}
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
	}
	return all, nil
}
