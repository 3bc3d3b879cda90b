// Command interop is one role of Network Service Mesh, composed of the chains of the Go SDK:
// the other side of our interop tests.
//
// A role tells what happens to it as JSON lines on stdout, and does what lines on stdin say.
// README.md has both languages.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // A zone of the test, also where the machine has none.

	"github.com/networkservicemesh/sdk/pkg/tools/log"
	"github.com/networkservicemesh/sdk/pkg/tools/log/logruslogger"
)

// settings are what the command line says.
type settings struct {
	name       string
	listen     []*url.URL // The first one is where others reach it.
	upstream   *url.URL
	service    string
	prefix     string
	tunnel     net.IP // Of a forwarder, in the network between nodes.
	security   string
	svid       string
	tokenLife  time.Duration
	expiration time.Duration
}

// roles by name. Each serves until the context ends, and hands its commands to the talk.
var roles = map[string]func(context.Context, *settings, *site, *talk) error{
	"registry":  runRegistry,
	"manager":   runManager,
	"forwarder": runForwarder,
	"endpoint":  runEndpoint,
	"client":    runClient,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || roles[args[0]] == nil {
		return fmt.Errorf("name a role: registry, manager, forwarder, endpoint or client")
	}
	s, err := parse(args[0], args[1:])
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log.EnableTracing(true)
	// At the level info: quieter, and the SDK's tracing wrappers drop the call options that carry
	// descriptors and the identity of servers.
	ctx = log.WithLog(ctx, logruslogger.New(ctx, map[string]interface{}{"role": s.name}))

	site, err := newSite(ctx, s)
	if err != nil {
		return err
	}
	defer site.close()
	t := newTalk(os.Stdin, os.Stdout)
	if err := roles[args[0]](ctx, s, site, t); err != nil {
		return err
	}
	t.obey(ctx)
	return nil
}

func parse(role string, args []string) (*settings, error) {
	s := &settings{}
	var listen, upstream, tunnel string
	flags := flag.NewFlagSet(role, flag.ContinueOnError)
	flags.StringVar(&s.name, "name", role, "name of the role, also in paths and in the registry")
	flags.StringVar(&listen, "listen", "", "URLs to listen on, comma separated; the first one is told to others")
	flags.StringVar(&upstream, "upstream", "", "URL of the manager; for a manager, of the registry")
	flags.StringVar(&s.service, "service", "", "network service that an endpoint serves")
	flags.StringVar(&s.prefix, "prefix", "172.16.0.0/24", "addresses that an endpoint assigns")
	flags.StringVar(&tunnel, "tunnel", "", "address of a forwarder in the network between nodes")
	flags.StringVar(&s.security, "security", "insecure", "insecure (test tokens, no policies) or mtls (SVIDs, the stock policies)")
	flags.StringVar(&s.svid, "svid", "", "directory with svid.pem, key.pem, bundle.pem; without it the Workload API")
	flags.DurationVar(&s.tokenLife, "token-lifetime", 10*time.Minute, "longest life of a token")
	flags.DurationVar(&s.expiration, "expiration", time.Minute, "life of a registration that asks for none")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	s.tunnel = net.ParseIP(tunnel)
	for _, text := range strings.Split(listen, ",") {
		on, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		s.listen = append(s.listen, on)
	}
	var err error
	if upstream != "" {
		s.upstream, err = url.Parse(upstream)
	}
	return s, err
}
