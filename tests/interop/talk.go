package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/networkservicemesh/sdk/pkg/tools/grpcutils"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// event is one line on stdout.
type event struct {
	Event string `json:"event"`
	// To is the number of the command that this answers.
	To string `json:"to,omitempty"`
	// URL is where the role listens.
	URL string `json:"url,omitempty"`
	// Messages are serialised messages of the API.
	Messages [][]byte `json:"messages,omitempty"`
	Deleted  bool     `json:"deleted,omitempty"`
	Error    string   `json:"error,omitempty"`
	Code     string   `json:"code,omitempty"`
}

// command does what a line says. What it returns is reported as done, its error as failed.
type command func(ctx context.Context, number string, args []string) ([]proto.Message, error)

// talk is a role's conversation with the test.
type talk struct {
	in       io.Reader
	commands map[string]command

	mu  sync.Mutex
	out *json.Encoder
}

func newTalk(in io.Reader, out io.Writer) *talk {
	return &talk{in: in, commands: make(map[string]command), out: json.NewEncoder(out)}
}

// on adds a command. It belongs before obey.
func (t *talk) on(verb string, do command) {
	t.commands[verb] = do
}

func (t *talk) tell(e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A reader that has gone ends this process through stdin.
	_ = t.out.Encode(e)
}

// about tells what happened to one message.
func (t *talk) about(what string, message proto.Message) {
	t.tell(event{Event: what, Messages: serialised(message)})
}

func (t *talk) failed(number string, err error) {
	t.tell(event{Event: "failed", To: number, Error: err.Error(), Code: code(err)})
}

// obey runs the commands on stdin, each in a goroutine of its own, until stdin ends or `leave` has been done.
func (t *talk) obey(ctx context.Context) {
	left := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(t.in)
		for lines.Scan() {
			words := strings.Fields(lines.Text())
			if len(words) < 2 {
				continue
			}
			go func() {
				t.do(ctx, words[0], words[1], words[2:])
				if words[1] == "leave" {
					close(left)
				}
			}()
		}
	}()
	select {
	case <-left:
	case <-ended:
	}
}

func (t *talk) do(ctx context.Context, number, verb string, args []string) {
	do := t.commands[verb]
	if do == nil {
		if verb == "leave" {
			t.tell(event{Event: "done", To: number})
			return
		}
		t.failed(number, fmt.Errorf("no command %q", verb))
		return
	}
	messages, err := do(ctx, number, args)
	if err != nil {
		t.failed(number, err)
		return
	}
	t.tell(event{Event: "done", To: number, Messages: serialised(messages...)})
}

func serialised(messages ...proto.Message) [][]byte {
	var all [][]byte
	for _, message := range messages {
		bytes, err := proto.Marshal(message)
		if err != nil {
			panic(err) // The SDK made the message.
		}
		all = append(all, bytes)
	}
	return all
}

func code(err error) string {
	if found := grpcutils.UnwrapCode(err); found != 0 {
		return found.String()
	}
	return status.Code(err).String()
}
