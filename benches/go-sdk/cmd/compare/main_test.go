package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func compare(t *testing.T, reference, ours string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "go.json"), filepath.Join(dir, "rust.json")}
	for i, text := range []string{reference, ours} {
		require.NoError(t, os.WriteFile(paths[i], []byte(text), 0o600))
	}
	var out strings.Builder
	err := run(&out, paths[0], paths[1])
	return out.String(), err
}

// row returns the words of the line that starts with name, after name.
func row(t *testing.T, table, name string) string {
	t.Helper()
	for _, line := range strings.Split(table, "\n") {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	require.Fail(t, "no such row", "%q in\n%s", name, table)
	return ""
}

func TestRatioIsAboveOneWhereOursIsBetterWhicheverWayTheFigureGoes(t *testing.T) {
	out, err := compare(t,
		`{"new_connection_p50_us": 5000, "new_connections_per_s_32": 100, "heal_1_ms": 4}`,
		`{"new_connection_p50_us": 500, "new_connections_per_s_32": 300, "heal_1_ms": 8}`)
	require.NoError(t, err)
	require.Equal(t, "µs 5000 500 10.00x", row(t, out, "new connection, p50"))
	require.Equal(t, "1/s 100 300 3.00x", row(t, out, "new connections, 32 at once"))
	require.Equal(t, "ms 4.00 8.00 0.50x", row(t, out, "heal of 1 connection"))
}

func TestFigureOfOneSideHasNoRatioAndOneOfNeitherNoRow(t *testing.T) {
	out, err := compare(t, `{"tasks_per_connection": 45}`,
		`{"tasks_per_connection": 0, "find_10_of_1m_ns": 4000, "heal_1_ms": null}`)
	require.NoError(t, err)
	require.Equal(t, "45.00 0.00 none left", row(t, out, "tasks per idle connection"))
	require.Equal(t, "ns - 4000 -", row(t, out, "Find 10 of 1 000 000 endpoints"))
	require.NotContains(t, out, "heal of 1 connection")
}

func TestQuickRunIsMarked(t *testing.T) {
	out, err := compare(t, `{"heal_1_ms": 4, "quick": true}`, `{"heal_1_ms": 4}`)
	require.NoError(t, err)
	require.Contains(t, out, "quick run")
}

func TestWrongFileIsAnErrorThatNamesIt(t *testing.T) {
	for _, text := range []string{"", "[1]", "Finished in 3 s", `{"other": 1}`, `{"heal_1_ms": "4"}`} {
		_, err := compare(t, `{"heal_1_ms": 4}`, text)
		require.ErrorContains(t, err, "rust.json", "for %q", text)
	}
}
