package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/edwarnicke/grpcfd"
	"github.com/networkservicemesh/sdk/pkg/registry/common/grpcmetadata"
	"google.golang.org/protobuf/proto"
)

// filesFile has URLs of files that are on this machine.
const filesFile = "files.json"

// verify reads what our test has written, and gives all differences.
func verify(dir, corpus string) error {
	return errors.Join(
		verifyMessages(filepath.Join(dir, messagesFile)),
		verifyHeaders(filepath.Join(dir, headersFile)),
		verifyOurTokens(filepath.Join(dir, tokensFile), corpus),
		verifyFiles(filepath.Join(dir, filesFile)),
	)
}

func verifyMessages(path string) error {
	var written []encoded
	if err := readJSON(path, &written); err != nil {
		return err
	}
	ours := map[string][]byte{}
	for _, one := range written {
		ours[one.Name] = one.Bytes
	}
	var differences []error
	for _, want := range messages() {
		wire, found := ours[want.name]
		delete(ours, want.name)
		got := want.message.ProtoReflect().New().Interface()
		switch err := proto.Unmarshal(wire, got); {
		case !found:
			differences = append(differences, fmt.Errorf("message %s was not written", want.name))
		case err != nil:
			differences = append(differences, fmt.Errorf("message %s: %w", want.name, err))
		case !proto.Equal(got, want.message):
			differences = append(differences, fmt.Errorf("message %s is\n\t%v\nand should be\n\t%v", want.name, got, want.message))
		}
	}
	for name := range ours {
		differences = append(differences, fmt.Errorf("message %s is unknown", name))
	}
	return errors.Join(differences...)
}

func verifyHeaders(path string) error {
	var written headerTexts
	if err := readJSON(path, &written); err != nil {
		return err
	}
	var differences []error
	known, times := paths(), ends()
	for _, one := range written.Paths {
		want, got := known[one.Name], &grpcmetadata.Path{}
		delete(known, one.Name)
		var err error
		if want == nil {
			err = errors.New("is unknown")
		} else if got, err = parsePath(one.Text); err == nil &&
			(got.Index != want.Index || !slices.Equal(tokensOf(got), tokensOf(want))) {
			err = fmt.Errorf("is read as %d %q", got.Index, tokensOf(got))
		}
		if err != nil {
			differences = append(differences, fmt.Errorf("path header %s: %w", one.Name, err))
		}
	}
	for _, one := range written.Tokens {
		want, found := times[one.Name]
		delete(times, one.Name)
		text, got, err := parseToken(one.Token, one.Expires)
		if err == nil && (!found || text != someToken || !got.Equal(want)) {
			err = fmt.Errorf("is read as %q until %v", text, got)
		}
		if err != nil {
			differences = append(differences, fmt.Errorf("token header %s: %w", one.Name, err))
		}
	}
	for name := range known {
		differences = append(differences, fmt.Errorf("path header %s was not written", name))
	}
	for name := range times {
		differences = append(differences, fmt.Errorf("token header %s was not written", name))
	}
	return errors.Join(differences...)
}

func verifyOurTokens(path, corpus string) error {
	both, err := identities(corpus)
	if err != nil {
		return err
	}
	var written []signed
	if err := readJSON(path, &written); err != nil {
		return err
	}
	return verifyTokens(written, both)
}

// verifyFiles compares with the URL that the SDK's sendfd would write.
func verifyFiles(path string) error {
	var written []struct {
		Path string `json:"path"`
		URL  string `json:"url"`
	}
	if err := readJSON(path, &written); err != nil {
		return err
	}
	var differences []error
	for _, one := range written {
		want, err := grpcfd.FilenameToURL(one.Path)
		if err != nil {
			differences = append(differences, err)
		} else if want.String() != one.URL {
			differences = append(differences, fmt.Errorf("file %s is %s and should be %s", one.Path, one.URL, want))
		}
	}
	if len(written) == 0 {
		differences = append(differences, errors.New("there are no files"))
	}
	return errors.Join(differences...)
}
