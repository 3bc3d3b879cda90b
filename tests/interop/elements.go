package main

import (
	"context"

	"github.com/golang/protobuf/ptypes/empty"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/api/pkg/api/networkservice/mechanisms/cls"
	"github.com/networkservicemesh/sdk/pkg/networkservice/core/next"
	"google.golang.org/grpc"
)

// observer is an element that tells what was asked for and closed.
type observer struct {
	talk *talk
}

func (o *observer) Request(
	ctx context.Context, request *networkservice.NetworkServiceRequest,
) (*networkservice.Connection, error) {
	connection, err := next.Server(ctx).Request(ctx, request)
	if err == nil {
		o.talk.about("requested", connection)
	}
	return connection, err
}

func (o *observer) Close(ctx context.Context, connection *networkservice.Connection) (*empty.Empty, error) {
	o.talk.about("closed", connection)
	return next.Server(ctx).Close(ctx, connection)
}

// clientObserver tells what a client has got: by a command, by refresh or by heal.
type clientObserver struct {
	talk *talk
}

func (o *clientObserver) Request(
	ctx context.Context, request *networkservice.NetworkServiceRequest, opts ...grpc.CallOption,
) (*networkservice.Connection, error) {
	connection, err := next.Client(ctx).Request(ctx, request, opts...)
	if err == nil {
		o.talk.about("connected", connection)
	}
	return connection, err
}

func (o *clientObserver) Close(
	ctx context.Context, connection *networkservice.Connection, opts ...grpc.CallOption,
) (*empty.Empty, error) {
	return next.Client(ctx).Close(ctx, connection, opts...)
}

// offer is an element that adds a mechanism between nodes to what a forwarder's client asks for.
type offer struct {
	mechanism string
}

func (o *offer) Request(
	ctx context.Context, request *networkservice.NetworkServiceRequest, opts ...grpc.CallOption,
) (*networkservice.Connection, error) {
	request.MechanismPreferences = append(request.GetMechanismPreferences(),
		&networkservice.Mechanism{Cls: cls.REMOTE, Type: o.mechanism, Parameters: make(map[string]string)})
	return next.Client(ctx).Request(ctx, request, opts...)
}

func (o *offer) Close(
	ctx context.Context, connection *networkservice.Connection, opts ...grpc.CallOption,
) (*empty.Empty, error) {
	return next.Client(ctx).Close(ctx, connection, opts...)
}
