package main

import (
	"bytes"
	"encoding/json"
	"net"
	"time"

	"github.com/networkservicemesh/api/pkg/api/ipam"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/cls"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/common"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/ipsec"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/memif"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/noop"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/srv6"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/vfio"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/vlan"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/vxlan"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/wireguard"
	"github.com/networkservicemesh/api/pkg/api/networkservice/payload"
	"github.com/networkservicemesh/api/pkg/api/registry"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// encoded is a message as it travels, with a form for people beside it.
type encoded struct {
	Name  string          `json:"name,omitempty"`
	Type  string          `json:"type,omitempty"`
	Bytes []byte          `json:"bytes"`
	JSON  json.RawMessage `json:"json,omitempty"`
}

func encode(name string, message proto.Message) (encoded, error) {
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return encoded{}, err
	}
	text, err := protojson.Marshal(message)
	if err != nil {
		return encoded{}, err
	}
	// The module puts spaces where it likes, on purpose.
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return encoded{}, err
	}
	return encoded{name, string(message.ProtoReflect().Descriptor().FullName()), wire, compact.Bytes()}, nil
}

func encodedMessages() (all []encoded, err error) {
	for _, one := range messages() {
		message, err := encode(one.name, one.message)
		if err != nil {
			return nil, err
		}
		all = append(all, message)
	}
	return all, nil
}

type named struct {
	name    string
	message proto.Message
}

// messages are the values that our test makes, too, by the same names.
func messages() []named {
	all := mechanisms()
	all = append(all,
		named{"request", &networkservice.NetworkServiceRequest{
			Connection: connection(),
			MechanismPreferences: []*networkservice.Mechanism{
				{Cls: cls.LOCAL, Type: kernel.MECHANISM},
				{Cls: cls.REMOTE, Type: vxlan.MECHANISM},
			},
		}},
		named{"empty request", &networkservice.NetworkServiceRequest{Connection: &networkservice.Connection{}}},
		named{"connection", connection()},
		named{"empty entries", &networkservice.Connection{Labels: map[string]string{"": "no key", "no value": ""}}},
		named{"selector", &networkservice.MonitorScopeSelector{
			PathSegments:    []*networkservice.PathSegment{{Name: "nsc"}, {Id: "id-2", Token: "token-2"}},
			NetworkServices: []string{"secure-ns", "other-ns"},
		}},
	)
	for kind := range int32(len(networkservice.ConnectionEventType_name)) {
		all = append(all, named{"event " + networkservice.ConnectionEventType_name[kind], &networkservice.ConnectionEvent{
			Type: networkservice.ConnectionEventType(kind),
			Connections: map[string]*networkservice.Connection{
				"id-1": {Id: "id-1", State: networkservice.State_DOWN},
				"id-2": connection(),
			},
		}})
	}
	for state := range int32(len(networkservice.State_name)) {
		all = append(all, named{"state " + networkservice.State_name[state], &networkservice.Connection{
			Id: "id", State: networkservice.State(state),
		}})
	}
	return append(all,
		named{"network service", service()},
		named{"network service query", &registry.NetworkServiceQuery{NetworkService: service(), Watch: true}},
		named{"network service response", &registry.NetworkServiceResponse{NetworkService: service(), Deleted: true}},
		named{"endpoint", endpoint()},
		named{"endpoint query", &registry.NetworkServiceEndpointQuery{NetworkServiceEndpoint: endpoint(), Watch: true}},
		named{"endpoint response", &registry.NetworkServiceEndpointResponse{
			NetworkServiceEndpoint: endpoint(), Deleted: true,
		}},
		named{"expired at once", &registry.NetworkServiceEndpoint{
			Name: "nse-1", ExpirationTime: &timestamppb.Timestamp{Seconds: -1},
		}},
		named{"empty labels", &registry.NetworkServiceEndpoint{
			NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{"secure-ns": {}},
		}},
		named{"prefix request", &ipam.PrefixRequest{
			Type: ipam.Type_ALLOCATE, Prefix: "10.0.0.0/24", ExcludePrefixes: []string{"10.0.0.0/30"},
		}},
		named{"prefix response", &ipam.PrefixResponse{Prefix: "10.0.0.0/24", ExcludePrefixes: []string{"10.0.0.0/30"}}},
	)
}

// mechanisms are made by the helpers of the API, where it has some.
func mechanisms() []named {
	local := kernel.New("file:///proc/4711/ns/net")
	k := kernel.ToMechanism(local)
	k.SetInterfaceName("nsm-1")
	k.SetDeviceTokenID("token-7")
	k.SetSupportsVLAN(true)
	k.SetVLAN(4094)
	k.SetRouteLocalNet(true)
	k.SetIPTables4NatTemplate("-N NSM", "-A PREROUTING -i {{ .NsmInterfaceName }} -j NSM")
	local.Parameters[kernel.NetNSInodeKey] = "4026531840"
	local.Parameters[kernel.PCIAddressKey] = "0000:01:00.0"

	socket := memif.New("/run/vpp/memif 1.sock")
	abstract := memif.NewAbstract("/proc/4711/ns/net")
	memif.ToMechanism(abstract).SetSocketFilename("@nsm/memif-1")

	device := vfio.New("/sys/fs/cgroup/devices/pod-1")
	v := vfio.ToMechanism(device)
	v.SetIommuGroup(42)
	v.SetPCIAddress("0000:01:00.0")
	v.SetDeviceTokenID("token-7")
	v.SetVfioMajor(10)
	v.SetVfioMinor(196)
	v.SetDeviceMajor(243)
	v.SetDeviceMinor(0)

	source, destination := net.ParseIP("10.0.0.1"), net.ParseIP("fd00::2")
	tunnel := &networkservice.Mechanism{Cls: cls.REMOTE, Type: vxlan.MECHANISM}
	vxlan.ToMechanism(tunnel).SetSrcIP(source).SetDstIP(destination).
		SetSrcPort(4789).SetDstPort(65535).SetVNI(0xffffff).SetMTU(1450)
	guard := &networkservice.Mechanism{Cls: cls.REMOTE, Type: wireguard.MECHANISM, Parameters: map[string]string{}}
	wireguard.ToMechanism(guard).SetSrcIP(source).SetDstIP(destination).SetSrcPort(51820).SetDstPort(51821).
		SetSrcPublicKey("c291cmNlIGtleSBvZiAzMiBieXRlcyBpbiBiYXNlNjQ=").
		SetDstPublicKey("ZGVzdGluYXRpb24ga2V5IG9mIDMyIGJ5dGVzIGluIDY=").SetMTU(1420)
	sec := &networkservice.Mechanism{Cls: cls.REMOTE, Type: ipsec.MECHANISM, Parameters: map[string]string{}}
	ipsec.ToMechanism(sec).SetSrcIP(source).SetDstIP(destination).SetSrcPort(500).SetDstPort(4500).
		SetSrcPublicKey("source key").SetDstPublicKey("destination key").SetMTU(1400)
	segments := &networkservice.Mechanism{Cls: cls.REMOTE, Type: srv6.MECHANISM, Parameters: map[string]string{
		srv6.SrcHostIP: "fd00::1", srv6.DstHostIP: "fd00::2", srv6.SrcBSID: "fd00:1::1", srv6.DstBSID: "fd00:1::2",
		srv6.SrcLocalSID: "fd00:2::1", srv6.DstLocalSID: "fd00:2::2",
		srv6.SrcHostLocalSID: "fd00:3::1", srv6.DstHostLocalSID: "fd00:3::2",
		srv6.SrcHardwareAddress: "02:00:00:00:00:01", srv6.DstHardwareAddress: "02:00:00:00:00:02",
	}}
	tagged := &networkservice.Mechanism{Cls: cls.REMOTE, Type: vlan.MECHANISM}
	vlan.ToMechanism(tagged).SetVlanID(4094)

	return []named{
		{"kernel", local}, {"memif socket", socket}, {"memif abstract", abstract}, {"vfio", device},
		{"vxlan", tunnel}, {"wireguard", guard}, {"ipsec", sec}, {"srv6", segments}, {"vlan", tagged},
		{"noop", &networkservice.Mechanism{Cls: cls.LOCAL, Type: noop.MECHANISM}},
	}
}

// connection has every field of every message below it.
func connection() *networkservice.Connection {
	route := func(prefix, nextHop string) *networkservice.Route {
		return &networkservice.Route{Prefix: prefix, NextHop: nextHop}
	}
	return &networkservice.Connection{
		Id:             "id-2",
		NetworkService: "secure-ns@floating.domain",
		Mechanism: &networkservice.Mechanism{
			Cls: cls.LOCAL, Type: kernel.MECHANISM, Parameters: map[string]string{common.InterfaceNameKey: "nsm-1"},
		},
		Context: &networkservice.ConnectionContext{
			IpContext: &networkservice.IPContext{
				SrcIpAddrs:       []string{"172.16.1.1/32", "fd00::1/128"},
				DstIpAddrs:       []string{"172.16.1.0/24", "fd00::/128"},
				SrcIpRequired:    true,
				DstIpRequired:    true,
				SrcRoutes:        []*networkservice.Route{route("0.0.0.0/0", ""), route("10.0.0.0/8", "172.16.1.9")},
				DstRoutes:        []*networkservice.Route{route("172.16.1.1/32", "")},
				ExcludedPrefixes: []string{"10.96.0.0/12"},
				IpNeighbors:      []*networkservice.IpNeighbor{{Ip: "172.16.1.0", HardwareAddress: "02:00:00:00:00:02"}},
				ExtraPrefixRequest: []*networkservice.ExtraPrefixRequest{{
					AddrFamily: &networkservice.IpFamily{Family: networkservice.IpFamily_IPV6},
					PrefixLen:  64, RequiredNumber: 1, RequestedNumber: 2,
				}},
				ExtraPrefixes: []string{"fd00:1::/64"},
				Policies: []*networkservice.PolicyRoute{{
					From: "172.16.1.1", Proto: "6", DstPort: "80", SrcPort: "1024-65535",
					Routes: []*networkservice.Route{route("0.0.0.0/0", "172.16.1.0")},
				}},
			},
			DnsContext: &networkservice.DNSContext{Configs: []*networkservice.DNSConfig{{
				DnsServerIps: []string{"172.16.1.0"}, SearchDomains: []string{"my.domain"},
			}}},
			EthernetContext: &networkservice.EthernetContext{
				SrcMac: "02:00:00:00:00:01", DstMac: "02:00:00:00:00:02", VlanTag: -1,
			},
			ExtraContext: map[string]string{"b": "2", "a": "1"},
			MTU:          9000,
		},
		Labels: map[string]string{"nodeName": "node-1", "app": "wéb"},
		Path: &networkservice.Path{
			Index: 1,
			PathSegments: []*networkservice.PathSegment{
				{Name: "nsc", Id: "id-1", Token: "token-1", Expires: moment()},
				{
					Name: "nsmgr", Id: "id-2", Token: "token-2", Expires: &timestamppb.Timestamp{Seconds: 253402300799},
					Metrics: map[string]string{"client_interface": "KERNEL/nsm-1", "rx_bytes": "18446744073709551615"},
				},
			},
		},
		NetworkServiceEndpointName: "nse-1",
		Payload:                    payload.Ethernet,
		State:                      networkservice.State_RESELECT_REQUESTED,
	}
}

func service() *registry.NetworkService {
	return &registry.NetworkService{
		Name:    "secure-ns",
		Payload: payload.IP,
		Matches: []*registry.Match{
			{
				SourceSelector: map[string]string{"app": "firewall"},
				Routes: []*registry.Destination{
					{DestinationSelector: map[string]string{"nodeName": "{{.nodeName}}"}, Weight: 4294967295},
					{},
				},
				Fallthrough: true,
				Metadata:    &registry.Metadata{Labels: map[string]string{"p2p": "true"}},
			},
			{},
		},
		PathIds: []string{"spiffe://golden.test/client", "spiffe://golden.test/server"},
	}
}

func endpoint() *registry.NetworkServiceEndpoint {
	return &registry.NetworkServiceEndpoint{
		Name:                "nse-1@my.domain",
		NetworkServiceNames: []string{"secure-ns", "other-ns"},
		NetworkServiceLabels: map[string]*registry.NetworkServiceLabels{
			"secure-ns": {Labels: map[string]string{"app": "firewall", "nodeName": "node-1"}},
			"other-ns":  {Labels: map[string]string{"app": "other"}},
		},
		Url:                     "inode://4/4026531840",
		ExpirationTime:          moment(),
		InitialRegistrationTime: &timestamppb.Timestamp{Seconds: 1709164800, Nanos: 1},
		PathIds:                 []string{"spiffe://golden.test/client"},
	}
}

// moment has all nine digits.
func moment() *timestamppb.Timestamp {
	return timestamppb.New(time.Unix(1709164800, 123456789))
}
