package gosdk

import (
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/stretchr/testify/require"
)

const (
	warmUp     = 20
	concurrent = 32
)

// measureLatency times single requests, one after the other: new connections
// into an empty mesh, refreshes of one connection, and new connections beside
// those opened before.
func (m *mesh) measureLatency(samples int, out *result) {
	m.startEndpoint("endpoint")
	nsc := m.newClient()

	request := func(req *networkservice.NetworkServiceRequest) (*networkservice.Connection, time.Duration) {
		start := time.Now()
		conn, err := nsc.Request(m.ctx, req)
		took := time.Since(start)
		require.NoError(m.t, err)
		// Client, manager, forwarder and endpoint, or it is not this benchmark.
		require.Len(m.t, conn.GetPath().GetPathSegments(), 4)
		return conn, took
	}
	closed := timed(samples, func() time.Duration {
		conn, took := request(newRequest())
		_, err := nsc.Close(m.ctx, conn)
		require.NoError(m.t, err)
		return took
	})
	out.NewConnectionP50us = micros(quantile(closed, 0.50))
	out.NewConnectionP99us = micros(quantile(closed, 0.99))

	conn, _ := request(newRequest())
	refreshed := timed(samples, func() time.Duration {
		refresh := newRequest()
		refresh.Connection = conn.Clone()
		again, took := request(refresh)
		require.Equal(m.t, conn.GetId(), again.GetId())
		conn = again
		return took
	})
	out.RefreshP50us = micros(quantile(refreshed, 0.50))

	kept := timed(samples, func() time.Duration {
		_, took := request(newRequest())
		return took
	})
	out.NewConnectionAmongOpenP50us = micros(quantile(kept, 0.50))
}

// timed returns the times of samples calls, after some that do not count.
func timed(samples int, call func() time.Duration) []time.Duration {
	times := make([]time.Duration, 0, samples)
	for i := range warmUp + samples {
		if took := call(); i >= warmUp {
			times = append(times, took)
		}
	}
	return times
}

// measureThroughput opens count connections, 32 at once, and leaves them open
// to see what each costs while it is idle.
func (m *mesh) measureThroughput(count int, out *result) {
	m.startEndpoint("endpoint")
	nsc := m.newClient()
	for i := 0; i < warmUp; i++ {
		_, err := nsc.Request(m.ctx, newRequest())
		require.NoError(m.t, err)
	}

	time.Sleep(settleTime)
	goroutines, before := runtime.NumGoroutine(), residentAfterGC(m.t)

	start := time.Now()
	m.openAll(nsc, count)
	took := time.Since(start)

	time.Sleep(settleTime)
	beforeGC := resident(m.t)
	after := residentAfterGC(m.t)

	out.NewConnectionsPerS32 = round(float64(count) / took.Seconds())
	out.BytesPerConnection = perConnection(after-before, count)
	out.BytesPerConnectionBeforeGC = perConnection(beforeGC-before, count)
	out.GoroutinesPerConnection = perConnection(int64(runtime.NumGoroutine()-goroutines), count)
	out.TasksPerConnection = out.GoroutinesPerConnection
}

// openAll opens count fresh connections with 32 callers and fails the test on
// the first error.
func (m *mesh) openAll(nsc networkservice.NetworkServiceClient, count int) {
	var next atomic.Int64
	var callers sync.WaitGroup
	errs := make(chan error, concurrent)
	for range concurrent {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for next.Add(1) <= int64(count) {
				if _, err := nsc.Request(m.ctx, newRequest()); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	callers.Wait()
	close(errs)
	for err := range errs {
		require.NoError(m.t, err)
	}
}

func residentAfterGC(t require.TestingT) int64 {
	runtime.GC()
	debug.FreeOSMemory()
	return resident(t)
}
