// Command golden writes what the Go API and SDK write and decide, as data for tests that need no Go, and checks the
// same values as we write them.
//
//	golden DIR           write the corpus; identities and tokens that are there are verified and kept
//	golden --check DIR   verify what our test has written into DIR, and name each difference
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	check := flag.Bool("check", false, "verify what our test has written")
	corpus := flag.String("identities", "", "with --check: directory of the corpus, for its certificates")
	flag.Parse()
	if flag.NArg() != 1 || *check != (*corpus != "") {
		fmt.Fprintln(os.Stderr, "usage: golden DIR, or golden --check --identities CORPUS DIR")
		os.Exit(2)
	}
	run := write
	if *check {
		run = func(dir string) error { return verify(dir, *corpus) }
	}
	if err := run(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "golden:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	both, err := identities(dir)
	if err != nil {
		return err
	}
	tokens, err := tokens(dir, both)
	if err != nil {
		return err
	}
	headers, err := headers()
	if err != nil {
		return err
	}
	encoded, err := encodedMessages()
	if err != nil {
		return err
	}
	matching, err := matching()
	if err != nil {
		return err
	}
	values, err := values()
	if err != nil {
		return err
	}
	for name, content := range map[string]any{
		tokensFile:      tokens,
		headersFile:     headers,
		messagesFile:    encoded,
		"matching.json": matching,
		"values.json":   values,
	} {
		if err := writeJSON(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return nil
}

const (
	tokensFile   = "tokens.json"
	headersFile  = "headers.json"
	messagesFile = "messages.json"
)

func writeJSON(path string, content any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(content); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

func readJSON(path string, content any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, content); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
