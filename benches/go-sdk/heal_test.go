package gosdk

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/golang/protobuf/ptypes/empty"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/next"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
)

const healTimeout = 30 * time.Second

// measureHeal returns the median, over rounds, of the time in which count
// connections move to another endpoint after theirs died.
func measureHeal(t *testing.T, count, rounds int) float64 {
	times := make([]time.Duration, 0, rounds)
	for range rounds {
		withMesh(t, func(m *mesh) { times = append(times, m.heal(count)) })
	}
	return millis(quantile(times, 0.50))
}

func (m *mesh) heal(count int) time.Duration {
	_, stopFirst := m.startEndpoint("endpoint-1")
	watch := &endpointWatch{}
	m.openAll(m.newClient(watch), count)

	second, _ := m.startEndpoint("endpoint-2")
	moved := watch.allOn(second, count)

	// The SDK's servers open the stream that watches the next hop after they have
	// answered. If that hop dies in between, they never tell and nothing heals.
	time.Sleep(settleTime)

	start := time.Now()
	stopFirst()
	select {
	case <-moved:
		return time.Since(start)
	case <-time.After(healTimeout):
		require.Fail(m.t, "connections did not heal", "%d of %d after %v", watch.arrived(), count, healTimeout)
		return 0
	}
}

// endpointWatch is an element of the client's chain. It sees the answer to every
// Request, those of heal included, and so the moment a connection has moved.
type endpointWatch struct {
	mu      sync.Mutex
	target  string
	want    int
	onIt    map[string]struct{}
	reached chan struct{}
}

// allOn returns a channel that closes when count connections are on endpoint.
func (w *endpointWatch) allOn(endpoint string, count int) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target, w.want = endpoint, count
	w.onIt = make(map[string]struct{}, count)
	w.reached = make(chan struct{})
	return w.reached
}

func (w *endpointWatch) arrived() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.onIt)
}

func (w *endpointWatch) Request(
	ctx context.Context, request *networkservice.NetworkServiceRequest, opts ...grpc.CallOption,
) (*networkservice.Connection, error) {
	conn, err := next.Client(ctx).Request(ctx, request, opts...)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reached != nil && conn.GetNetworkServiceEndpointName() == w.target {
		w.onIt[conn.GetPath().GetPathSegments()[0].GetId()] = struct{}{}
		if len(w.onIt) == w.want {
			close(w.reached)
			w.reached = nil
		}
	}
	return conn, nil
}

func (w *endpointWatch) Close(
	ctx context.Context, conn *networkservice.Connection, opts ...grpc.CallOption,
) (*empty.Empty, error) {
	return next.Client(ctx).Close(ctx, conn, opts...)
}
