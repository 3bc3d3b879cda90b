package main

import (
	"fmt"
	"net"
	"net/url"

	"github.com/edwarnicke/grpcfd"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/common"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/kernel"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/vfio"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/vlan"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/vxlan"
	"github.com/networkservicemesh/sdk/pkg/tools/interdomain"
	"github.com/networkservicemesh/sdk/pkg/tools/nsurl"
)

// valueCases are texts and small messages with what the Go code makes of them.
type valueCases struct {
	Names      []nameCase      `json:"names"`
	URLs       []urlCase       `json:"service_urls"`
	Files      []fileCase      `json:"file_urls"`
	VNIs       []vniCase       `json:"vni_parity"`
	Ports      []portCase      `json:"port_ranges"`
	Prefixes   []prefixCase    `json:"extra_prefixes"`
	Routes     []routeCase     `json:"routes"`
	Parameters []parameterCase `json:"parameters"`
}

func values() (all valueCases, err error) {
	all.Names, all.URLs, all.Files = names(), serviceURLs(), fileURLs()
	all.VNIs, all.Ports, all.Parameters = vniParities(), portRanges(), parameters()
	if all.Prefixes, err = extraPrefixes(); err == nil {
		all.Routes, err = routes()
	}
	return all, err
}

type nameCase struct {
	Name        string `json:"name"`
	Interdomain bool   `json:"interdomain"`
	Target      string `json:"target"`
	Domain      string `json:"domain"`
}

func names() (all []nameCase) {
	for _, name := range []string{"", "a", "a@", "@b", "a@b", "a@b@c", "@", "vpn@floating.domain", "@@"} {
		all = append(all, nameCase{name, interdomain.Is(name), interdomain.Target(name), interdomain.Domain(name)})
	}
	return all
}

type urlCase struct {
	Text      string            `json:"text"`
	Valid     bool              `json:"valid"`
	Mechanism string            `json:"mechanism"`
	Service   string            `json:"service"`
	Interface string            `json:"interface"`
	Labels    map[string]string `json:"labels"`
}

func serviceURLs() (all []urlCase) {
	for _, text := range []string{
		"kernel://my-service",
		"kernel://my-service/nsm-1",
		"kernel://my-service/",
		"kernel://my-service/a/b/nsm-1",
		"kernel://my-service@dc.example.com/ms1",
		"KERNEL://my-service/nsm-1",
		"memif://my-vpp-service?A=1&B=2&C=3",
		"vfio://second-service?sriovToken=intel/10G",
		"vfio://second-service/nsm-1?sriovToken=intel%2F10G&serviceDomain=w+1",
		"kernel://my-service/nsm-1?app=a&app=b&empty=&flag",
		"kernel://my-service?app=%C3%A9",
		"kernel://10.0.0.1/nsm-1",
		"kernel://my-service:5000/nsm-1",
		"kernel://My-Service/nsm-1",
		"kernel://my-service/a-name-of-16-chr",
		"kernel:///nsm-1",
		"kernel://my-service@/nsm-1",
		"kernel://my%20service/nsm-1",
		"kernel://my-service/nsm-1#part",
		"kernel://my-service/nsm%2D1",
		"kernel://my-service?a=%zz",
		"kernel://my-service?a=1;b=2",
		"my-service",
		"",
		"ker nel://my-service",
	} {
		parsed, err := url.Parse(text)
		if err != nil {
			all = append(all, urlCase{Text: text, Labels: map[string]string{}})
			continue
		}
		service := (*nsurl.NSURL)(parsed)
		mechanism := service.Mechanism()
		all = append(all, urlCase{
			text, true, mechanism.GetType(), service.NetworkService(),
			mechanism.GetParameters()[common.InterfaceNameKey], service.Labels(),
		})
	}
	return all
}

type fileCase struct {
	Text   string `json:"text"`
	Valid  bool   `json:"valid"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

func fileURLs() (all []fileCase) {
	for _, text := range []string{
		"inode://4/4026531840", "inode://0/0", "inode://18446744073709551615/18446744073709551615",
		"inode://18446744073709551616/1", "inode://4", "inode://4/", "inode:///5", "inode://4/-5", "inode://4/0x5",
		"inode://4/5/6", "file:///proc/1/ns/net", "",
	} {
		device, inode, err := grpcfd.URLStringToDevIno(text)
		all = append(all, fileCase{text, err == nil, device, inode})
	}
	return all
}

type vniCase struct {
	Parameters map[string]string `json:"parameters"`
	Even       bool              `json:"even"`
}

func vniParities() (all []vniCase) {
	const low, high = "10.0.0.1", "10.0.0.2"
	ends := func(src, dst string) map[string]string {
		return map[string]string{common.SrcIP: src, common.DstIP: dst}
	}
	original := func(src, dst, originalSrc, originalDst string) map[string]string {
		parameters := ends(src, dst)
		parameters[common.SrcOriginalIP], parameters[common.DstOriginalIP] = originalSrc, originalDst
		return parameters
	}
	onlySrc := ends(low, high)
	onlySrc[common.SrcOriginalIP] = "10.0.0.3"
	onlyDst := ends(high, low)
	onlyDst[common.DstOriginalIP] = "10.0.0.3"
	for _, parameters := range []map[string]string{
		ends(low, high), ends(high, low), ends(low, low),
		ends("fd00::1", "fd00::2"), ends("fd00::2", "fd00::1"), ends("10.0.0.1", "fd00::1"), ends("fd00::1", "10.0.0.1"),
		ends("::ffff:10.0.0.1", "10.0.0.1"), ends("255.255.255.255", "::1"),
		onlySrc, onlyDst,
		original(low, high, high, low), original(high, low, low, high),
		original(low, high, "", ""), original(high, low, "", ""), original(low, high, high, ""), original(high, low, "", low),
		original(low, high, "nonsense", low), original(low, high, low, "nonsense"),
	} {
		mechanism := &networkservice.Mechanism{Type: vxlan.MECHANISM, Parameters: parameters}
		all = append(all, vniCase{parameters, vxlan.ToMechanism(mechanism).EvenVNI()})
	}
	return all
}

type portCase struct {
	Text  string `json:"text"`
	Valid bool   `json:"valid"`
	None  bool   `json:"none"`
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

func portRanges() (all []portCase) {
	for _, text := range []string{
		"", "80", "8000-8999", "0", "65535", "65536", "80-80", "90-80", "-80", "80-", "-", "1-2-3", "+80", " 80", "http", "080",
	} {
		ports, err := networkservice.ParsePortRange(text)
		one := portCase{Text: text, Valid: err == nil, None: err == nil && ports == nil}
		if ports != nil {
			one.First, one.Last = ports.Start, ports.End
		}
		all = append(all, one)
	}
	return all
}

type prefixCase struct {
	Request encoded `json:"request"`
	Valid   bool    `json:"valid"`
}

func extraPrefixes() (all []prefixCase, err error) {
	v4 := &networkservice.IpFamily{Family: networkservice.IpFamily_IPV4}
	v6 := &networkservice.IpFamily{Family: networkservice.IpFamily_IPV6}
	for i, request := range []*networkservice.ExtraPrefixRequest{
		{AddrFamily: v4, PrefixLen: 24, RequiredNumber: 1, RequestedNumber: 1},
		{AddrFamily: v4, PrefixLen: 1, RequiredNumber: 1, RequestedNumber: 9},
		{AddrFamily: v4, PrefixLen: 32, RequiredNumber: 1, RequestedNumber: 1},
		{AddrFamily: v4, PrefixLen: 33, RequiredNumber: 1, RequestedNumber: 1},
		{AddrFamily: v6, PrefixLen: 128, RequiredNumber: 1, RequestedNumber: 1},
		{AddrFamily: v6, PrefixLen: 129, RequiredNumber: 1, RequestedNumber: 1},
		{AddrFamily: v6, PrefixLen: 0, RequiredNumber: 1, RequestedNumber: 1},
		{AddrFamily: v6, PrefixLen: 64, RequiredNumber: 0, RequestedNumber: 1},
		{AddrFamily: v6, PrefixLen: 64, RequiredNumber: 1, RequestedNumber: 0},
		{AddrFamily: v6, PrefixLen: 64, RequiredNumber: 2, RequestedNumber: 1},
		{PrefixLen: 64, RequiredNumber: 1, RequestedNumber: 1},
		{AddrFamily: &networkservice.IpFamily{Family: 7}, PrefixLen: 200, RequiredNumber: 1, RequestedNumber: 1},
		{},
	} {
		message, err := encode(fmt.Sprint(i), request)
		if err != nil {
			return nil, err
		}
		all = append(all, prefixCase{message, request.IsValid() == nil})
	}
	return all, nil
}

// routeCase has the routes that follow from addresses: `prefix` or `prefix via address`.
type routeCase struct {
	Context  encoded  `json:"context"`
	Src      []string `json:"src_routes"`
	Dst      []string `json:"dst_routes"`
	SrcLinks []string `json:"src_link_routes"`
	DstLinks []string `json:"dst_link_routes"`
}

func routes() (all []routeCase, err error) {
	to := func(prefixes ...string) (all []*networkservice.Route) {
		for _, prefix := range prefixes {
			all = append(all, &networkservice.Route{Prefix: prefix})
		}
		return all
	}
	everywhere := to("0.0.0.0/0", "::/0", "10.0.0.0/8", "172.16.1.128/25", "172.16.1.0/32", "172.16.1.1/32", "fd00::/64")
	for i, context := range []*networkservice.IPContext{
		{SrcRoutes: everywhere, DstRoutes: everywhere},
		{
			SrcIpAddrs: []string{"172.16.1.1/32", "fd00::1/128"}, DstIpAddrs: []string{"172.16.1.0/32", "fd00::/128"},
			SrcRoutes: everywhere, DstRoutes: everywhere,
		},
		{
			SrcIpAddrs: []string{"172.16.1.1/24"}, DstIpAddrs: []string{"172.16.1.0/24", "172.16.2.0/24"},
			SrcRoutes: everywhere, DstRoutes: everywhere,
		},
		{
			SrcIpAddrs: []string{"", "nonsense", "fd00::1/64"}, DstIpAddrs: []string{"10.0.0.1", "fd00::2/64", "fd00::3/64"},
			SrcRoutes: everywhere, DstRoutes: everywhere,
		},
		{
			SrcIpAddrs: []string{"172.16.1.1/32"}, DstIpAddrs: []string{"172.16.1.0/32"},
			SrcRoutes: []*networkservice.Route{{Prefix: "10.0.0.0/8", NextHop: "172.16.1.9"}},
		},
	} {
		message, err := encode(fmt.Sprint(i), context)
		if err != nil {
			return nil, err
		}
		all = append(all, routeCase{
			message, texts(context.GetSrcRoutesWithExplicitNextHop()), texts(context.GetDstRoutesWithExplicitNextHop()),
			texts(context.GetSrcIPRoutes()), texts(context.GetDstIPRoutes()),
		})
	}
	return all, nil
}

func texts(routes []*networkservice.Route) []string {
	all := []string{}
	for _, route := range routes {
		text := route.GetPrefix()
		if route.GetNextHop() != "" {
			text += " via " + route.GetNextHop()
		}
		all = append(all, text)
	}
	return all
}

// parameterCase is what a getter of the API makes of a parameter's text; zero stands for absent and unreadable, too.
type parameterCase struct {
	Type  string `json:"type"`
	Key   string `json:"key"`
	Text  string `json:"text"`
	Value string `json:"value"`
}

func parameters() (all []parameterCase) {
	numbers := []string{"", "0", "1", "007", "+1", "-1", " 1", "1.0", "0x10", "4095", "4096", "65535", "65536",
		"16777215", "16777216", "4294967295", "4294967296"}
	addresses := []string{"", "10.0.0.1", "010.0.0.1", "10.0.0", "10.0.0.1/32", "fd00::1", "FD00::0:1", "fe80::1%eth0",
		"[fd00::1]", "::ffff:10.0.0.1"}
	flags := []string{"", "true", "True", "TRUE", "t", "T", "1", "tRUE", "yes", "false", "0", "f"}
	address := func(ip net.IP) any {
		if ip == nil {
			return ""
		}
		return ip
	}
	for _, one := range []struct {
		kind, key string
		texts     []string
		get       func(*networkservice.Mechanism) any
	}{
		{vxlan.MECHANISM, vxlan.VNI, numbers, func(m *networkservice.Mechanism) any { return vxlan.ToMechanism(m).VNI() }},
		{vxlan.MECHANISM, vxlan.SrcPort, numbers, func(m *networkservice.Mechanism) any { return vxlan.ToMechanism(m).SrcPort() }},
		{vxlan.MECHANISM, vxlan.MTU, numbers, func(m *networkservice.Mechanism) any { return vxlan.ToMechanism(m).MTU() }},
		{vxlan.MECHANISM, vxlan.SrcIP, addresses, func(m *networkservice.Mechanism) any { return address(vxlan.ToMechanism(m).SrcIP()) }},
		{vlan.MECHANISM, vlan.ID, numbers, func(m *networkservice.Mechanism) any { return vlan.ToMechanism(m).GetVlanID() }},
		{kernel.MECHANISM, kernel.VLAN, numbers, func(m *networkservice.Mechanism) any { return kernel.ToMechanism(m).GetVLAN() }},
		{kernel.MECHANISM, kernel.SupportsVLAN, flags, func(m *networkservice.Mechanism) any { return kernel.ToMechanism(m).SupportsVLAN() }},
		{kernel.MECHANISM, kernel.RouteLocalNet, flags, func(m *networkservice.Mechanism) any { return kernel.ToMechanism(m).GetRouteLocalNet() }},
		{vfio.MECHANISM, vfio.IommuGroupKey, numbers, func(m *networkservice.Mechanism) any { return vfio.ToMechanism(m).GetIommuGroup() }},
	} {
		for _, text := range one.texts {
			mechanism := &networkservice.Mechanism{Type: one.kind, Parameters: map[string]string{one.key: text}}
			all = append(all, parameterCase{one.kind, one.key, text, fmt.Sprint(one.get(mechanism))})
		}
	}
	return all
}
