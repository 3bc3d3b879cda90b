package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/networkservicemesh/api/pkg/api/registry"
	"github.com/networkservicemesh/sdk/pkg/registry/common/grpcmetadata"
	"github.com/networkservicemesh/sdk/pkg/registry/core/next"
	"github.com/networkservicemesh/sdk/pkg/tools/token"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// headerTexts are the headers that travel beside calls.
type headerTexts struct {
	Paths  []pathHeader  `json:"paths"`
	Tokens []tokenHeader `json:"tokens"`
}

// pathHeader is a registry path, and the text of its header.
type pathHeader struct {
	Name   string   `json:"name"`
	Index  uint32   `json:"index"`
	Tokens []string `json:"tokens"`
	Text   string   `json:"text"`
}

// tokenHeader is a token with its end, and the texts of its headers.
type tokenHeader struct {
	Name    string `json:"name"`
	Token   string `json:"token"`
	Expires string `json:"expires"`
	Seconds int64  `json:"seconds"`
	Nanos   int    `json:"nanos"`
}

func headers() (headerTexts, error) {
	var all headerTexts
	for name, path := range paths() {
		text, err := pathText(path)
		if err != nil {
			return all, err
		}
		all.Paths = append(all.Paths, pathHeader{name, path.Index, tokensOf(path), text})
	}
	for name, end := range ends() {
		text, expires, err := tokenTexts(someToken, end)
		if err != nil {
			return all, err
		}
		all.Tokens = append(all.Tokens, tokenHeader{name, text, expires, end.Unix(), end.Nanosecond()})
	}
	slices.SortFunc(all.Paths, func(a, b pathHeader) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(all.Tokens, func(a, b tokenHeader) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func paths() map[string]*grpcmetadata.Path {
	segments := func(tokens ...string) (all []*grpcmetadata.PathSegment) {
		for _, token := range tokens {
			all = append(all, &grpcmetadata.PathSegment{Token: token})
		}
		return all
	}
	return map[string]*grpcmetadata.Path{
		"none":          {},
		"empty":         {PathSegments: []*grpcmetadata.PathSegment{}},
		"one":           {PathSegments: segments("a.b.c")},
		"three":         {Index: 1, PathSegments: segments("a.b.c", "d.e.f", "")},
		"null segment":  {PathSegments: []*grpcmetadata.PathSegment{nil}},
		"largest index": {Index: 4294967295, PathSegments: segments("a")},
		"escapes":       {PathSegments: segments(`<a href="b">&'\` + "\t")},
	}
}

func tokensOf(path *grpcmetadata.Path) []string {
	all := []string{}
	for _, segment := range path.PathSegments {
		if segment == nil {
			segment = &grpcmetadata.PathSegment{}
		}
		all = append(all, segment.Token)
	}
	return all
}

// pathText is the header that the SDK's client element sends.
func pathText(path *grpcmetadata.Path) (text string, err error) {
	client := next.NewNetworkServiceRegistryClient(
		grpcmetadata.NewNetworkServiceRegistryClient(),
		sender{look: func(ctx context.Context) {
			sent, _ := metadata.FromOutgoingContext(ctx)
			text = strings.Join(sent.Get("path"), "\n")
		}},
	)
	_, err = client.Register(grpcmetadata.PathWithContext(context.Background(), path), &registry.NetworkService{})
	return text, err
}

// parsePath is how the SDK's server element takes the header.
func parsePath(text string) (path *grpcmetadata.Path, err error) {
	server := next.NewNetworkServiceRegistryServer(
		grpcmetadata.NewNetworkServiceRegistryServer(),
		receiver{look: func(ctx context.Context) { path = grpcmetadata.PathFromContext(ctx) }},
	)
	sent := &answer{}
	ctx := grpc.NewContextWithServerTransportStream(context.Background(), sent)
	ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("path", text))
	if _, err = server.Register(ctx, &registry.NetworkService{}); err == nil && !sent.path {
		// It goes on without a path, and answers without one.
		err = errors.New("is not taken")
	}
	return path, err
}

// ends are times in the zones and of the precisions that their text differs in.
func ends() map[string]time.Time {
	second := time.Unix(1709164800, 0)
	in := func(hours, minutes int) *time.Location { return time.FixedZone("", hours*3600+minutes*60) }
	return map[string]time.Time{
		"utc":         second.UTC(),
		"east":        second.Add(123456789).In(in(2, 0)),
		"west":        second.Add(500 * time.Millisecond).In(in(-3, -30)),
		"kathmandu":   second.Add(1).In(in(5, 45)),
		"far east":    second.Add(999999999).In(in(14, 0)),
		"before 1970": time.Unix(-1, 500000000).UTC(),
		"year 9999":   time.Unix(253402300799, 0).UTC(),
	}
}

// tokenTexts are the headers that the SDK's credentials send.
func tokenTexts(text string, end time.Time) (sent, expires string, err error) {
	fixed := func(credentials.AuthInfo) (string, time.Time, error) { return text, end, nil }
	ctx := peer.NewContext(context.Background(), &peer.Peer{})
	headers, err := token.NewPerRPCCredentials(fixed).GetRequestMetadata(ctx)
	return headers[tokenKey], headers[expiresKey], err
}

// parseToken is how the SDK takes these headers.
func parseToken(text, expires string) (string, time.Time, error) {
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(tokenKey, text, expiresKey, expires))
	return token.FromContext(ctx)
}

const (
	someToken  = "header.claims.signature"
	tokenKey   = "nsm-client-token"
	expiresKey = "nsm-client-token-expires"
)

// sender is the last element of a client, receiver of a server: they look at the context.
type sender struct {
	registry.NetworkServiceRegistryClient
	look func(context.Context)
}

func (s sender) Register(
	ctx context.Context, ns *registry.NetworkService, _ ...grpc.CallOption,
) (*registry.NetworkService, error) {
	s.look(ctx)
	return ns, nil
}

type receiver struct {
	registry.NetworkServiceRegistryServer
	look func(context.Context)
}

func (r receiver) Register(ctx context.Context, ns *registry.NetworkService) (*registry.NetworkService, error) {
	r.look(ctx)
	return ns, nil
}

// answer takes the headers of an answer, and knows whether a path is among them.
type answer struct{ path bool }

func (a *answer) SendHeader(header metadata.MD) error {
	a.path = len(header.Get("path")) == 1
	return nil
}

func (*answer) Method() string               { return "Register" }
func (*answer) SetHeader(metadata.MD) error  { return nil }
func (*answer) SetTrailer(metadata.MD) error { return nil }
