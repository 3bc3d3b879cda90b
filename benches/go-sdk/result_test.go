package gosdk

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
)

// result is the document both sides print. README.md defines each figure.
type result struct {
	NewConnectionP50us      float64 `json:"new_connection_p50_us"`
	NewConnectionP99us      float64 `json:"new_connection_p99_us"`
	NewConnectionsPerS32    float64 `json:"new_connections_per_s_32"`
	RefreshP50us            float64 `json:"refresh_p50_us"`
	BytesPerConnection      float64 `json:"bytes_per_connection"`
	GoroutinesPerConnection float64 `json:"goroutines_per_connection"`
	TasksPerConnection      float64 `json:"tasks_per_connection"`
	Heal1ms                 float64 `json:"heal_1_ms"`
	Heal100ms               float64 `json:"heal_100_ms"`
	EndpointChainNs         float64 `json:"endpoint_chain_ns"`
	EndpointChainAllocs     float64 `json:"endpoint_chain_allocs"`
	Find10Of10kNs           float64 `json:"find_10_of_10k_ns"`
	Elements50Ns            float64 `json:"elements_50_ns"`

	// Figures to understand the others by, and what the run was.
	NewConnectionAmongOpenP50us float64 `json:"new_connection_among_open_p50_us"`
	BytesPerConnectionBeforeGC  float64 `json:"bytes_per_connection_before_gc"`
	EndpointChainIPAMNs         float64 `json:"endpoint_chain_ipam_ns"`
	EndpointChainNewIDNs        float64 `json:"endpoint_chain_new_id_ns"`
	Connections                 int     `json:"connections"`
	Quick                       bool    `json:"quick"`
	CPUs                        int     `json:"cpus"`
	GoVersion                   string  `json:"go_version"`
}

// counts says how much is done: a full run, or a quick one.
type counts struct {
	latencySamples, connections, heal1Rounds, heal100Rounds int
}

func TestMesh(t *testing.T) {
	// As a command of the reference runs with NSM_LOG_LEVEL=ERROR: below that
	// level its chains neither log nor compare what passes through them.
	logrus.SetLevel(logrus.ErrorLevel)

	quick := os.Getenv("NSM_BENCH_QUICK") == "1"
	n := counts{latencySamples: 200, connections: 1000, heal1Rounds: 5, heal100Rounds: 3}
	if quick {
		n = counts{latencySamples: 50, connections: 200, heal1Rounds: 1, heal100Rounds: 1}
	}
	out := &result{
		Connections: n.connections,
		Quick:       quick,
		CPUs:        runtime.GOMAXPROCS(0),
		GoVersion:   runtime.Version(),
	}

	withMesh(t, func(m *mesh) { m.measureLatency(n.latencySamples, out) })
	withMesh(t, func(m *mesh) { m.measureThroughput(n.connections, out) })
	out.Heal1ms = measureHeal(t, 1, n.heal1Rounds)
	out.Heal100ms = measureHeal(t, 100, n.heal100Rounds)
	measureEndpointChain(out)
	measureFind(t, out)
	measureElements(out)

	write(t, out)
}

// write puts the document into the file NSM_BENCH_OUT names, or prints it on one
// line after "RESULT ".
func write(t *testing.T, out *result) {
	document, err := json.Marshal(out)
	require.NoError(t, err)
	if path := os.Getenv("NSM_BENCH_OUT"); path != "" {
		require.NoError(t, os.WriteFile(path, append(document, '\n'), 0o644))
		return
	}
	fmt.Printf("RESULT %s\n", document)
}

// quantile is the smallest sample that at least the share q does not exceed.
func quantile(samples []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(samples))
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

func micros(d time.Duration) float64 { return round(float64(d) / float64(time.Microsecond)) }

func millis(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }

// round keeps two decimals.
func round(v float64) float64 { return math.Round(v*100) / 100 }

func perConnection(total int64, count int) float64 { return round(float64(total) / float64(count)) }

// resident is this process's resident memory in bytes (VmRSS, proc(5)).
func resident(t require.TestingT) int64 {
	status, err := os.Open("/proc/self/status")
	require.NoError(t, err)
	defer func() { _ = status.Close() }()

	lines := bufio.NewScanner(status)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			require.NoError(t, err)
			return kib * 1024
		}
	}
	require.Fail(t, "no VmRSS in /proc/self/status")
	return 0
}

func TestQuantileIsTheSmallestSampleThatTheShareDoesNotExceed(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	require.Equal(t, time.Duration(50), quantile(hundred, 0.50))
	require.Equal(t, time.Duration(99), quantile(hundred, 0.99))
	require.Equal(t, time.Duration(7), quantile([]time.Duration{7}, 0.50))
}
