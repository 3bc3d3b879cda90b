// Compare prints the figures of the Go reference SDK and ours side by side.
//
//	go run ./cmd/compare go.json rust.json
//
// Each file holds one JSON object with the keys README.md defines.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
)

type figure struct {
	key, name, unit string
	more            bool // more is better, not less
}

var figures = []figure{
	{key: "new_connection_p50_us", name: "new connection, p50", unit: "µs"},
	{key: "new_connection_p99_us", name: "new connection, p99", unit: "µs"},
	{key: "new_connection_among_open_p50_us", name: "new connection among open ones, p50", unit: "µs"},
	{key: "new_connections_per_s_32", name: "new connections, 32 at once", unit: "1/s", more: true},
	{key: "refresh_p50_us", name: "refresh, p50", unit: "µs"},
	{key: "bytes_per_connection", name: "memory per idle connection", unit: "bytes"},
	{key: "tasks_per_connection", name: "tasks per idle connection", unit: ""},
	{key: "heal_1_ms", name: "heal of 1 connection", unit: "ms"},
	{key: "heal_100_ms", name: "heal of 100 connections", unit: "ms"},
	{key: "endpoint_chain_ns", name: "endpoint chain, refresh", unit: "ns"},
	{key: "endpoint_chain_allocs", name: "endpoint chain, allocations", unit: ""},
	{key: "endpoint_chain_new_id_ns", name: "endpoint chain, new connection", unit: "ns"},
	{key: "endpoint_chain_ipam_ns", name: "endpoint chain with IPAM, refresh", unit: "ns"},
	{key: "find_10_of_10k_ns", name: "Find 10 of 10 000 endpoints", unit: "ns"},
	{key: "find_10_of_1m_ns", name: "Find 10 of 1 000 000 endpoints", unit: "ns"},
	{key: "elements_50_ns", name: "50 empty elements", unit: "ns"},
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: compare go.json rust.json")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, goPath, rustPath string) error {
	reference, err := load(goPath)
	if err != nil {
		return err
	}
	ours, err := load(rustPath)
	if err != nil {
		return err
	}
	if err := table(w, reference, ours); err != nil {
		return err
	}
	if reference["quick"] == true || ours["quick"] == true {
		_, err = fmt.Fprintln(w, "\nA quick run: too few samples to quote these figures.")
	}
	return err
}

func load(path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var document map[string]any
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("%s is not one JSON object: %w", path, err)
	}
	for _, f := range figures {
		if _, ok := document[f.key].(float64); ok {
			return document, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", path, errNoFigures)
}

var errNoFigures = errors.New("none of the benchmark's keys is in it")

func table(w io.Writer, reference, ours map[string]any) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "figure\tunit\tGo SDK\tnsm\tnsm better by\t")
	for _, f := range figures {
		was, hasWas := reference[f.key].(float64)
		is, hasIs := ours[f.key].(float64)
		if !hasWas && !hasIs {
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t\n",
			f.name, f.unit, cell(was, hasWas), cell(is, hasIs), f.ratio(was, is, hasWas && hasIs))
	}
	return t.Flush()
}

func cell(v float64, ok bool) string {
	if !ok {
		return "-"
	}
	decimals := 0
	if v < 100 {
		decimals = 2
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// ratio says how many times better ours is; under 1 it is worse. A cost that is
// gone altogether has no ratio.
func (f figure) ratio(was, is float64, both bool) string {
	if !both {
		return "-"
	}
	good, bad := is, was
	if !f.more {
		good, bad = was, is
	}
	switch {
	case bad > 0:
		return fmt.Sprintf("%.2fx", good/bad)
	case !f.more && was > 0:
		return "none left"
	default:
		return "-"
	}
}
