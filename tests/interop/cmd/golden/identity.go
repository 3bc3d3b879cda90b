package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/networkservicemesh/api/pkg/api/networkservice"
	"github.com/networkservicemesh/sdk/pkg/tools/opa"
	"github.com/networkservicemesh/sdk/pkg/tools/spiffejwt"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// pair is a client and a server that know each other's certificate.
type pair struct{ client, server *x509svid.SVID }

// signed is a path token and what it claims.
type signed struct {
	Name     string   `json:"name"`
	Signer   string   `json:"signer"`
	Subject  string   `json:"subject"`
	Audience []string `json:"audience"`
	Expires  int64    `json:"expires"`
	Text     string   `json:"text"`
}

// forever is longer than any certificate here: tokens end with the certificate of their signer.
const forever = 200 * 365 * 24 * time.Hour

// identities reads the two identities of a corpus, or makes them.
func identities(dir string) (both pair, err error) {
	if both.client, err = identity(dir, "client"); err == nil {
		both.server, err = identity(dir, "server")
	}
	return both, err
}

func identity(dir, name string) (*x509svid.SVID, error) {
	certificate, key := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key.pem")
	svid, err := x509svid.Load(certificate, key)
	if err == nil {
		return svid, nil
	}
	if _, missing := os.Stat(certificate); !errors.Is(missing, fs.ErrNotExist) {
		return nil, err
	}
	if svid, err = makeIdentity(name); err != nil {
		return nil, err
	}
	certificates, private, err := svid.Marshal()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(certificate, certificates, 0o644); err != nil {
		return nil, err
	}
	return svid, os.WriteFile(key, private, 0o644)
}

// makeIdentity signs a certificate by itself: nobody checks here who signed it.
func makeIdentity(name string) (*x509svid.SVID, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2099, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:         []*url.URL{{Scheme: "spiffe", Host: "golden.test", Path: "/" + name}},
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return x509svid.ParseRaw(leaf, private)
}

// tokens are those of the corpus, verified; signatures are random, so they are made once.
func tokens(dir string, both pair) (all []signed, err error) {
	err = readJSON(filepath.Join(dir, tokensFile), &all)
	if errors.Is(err, fs.ErrNotExist) {
		all, err = sign(both)
	}
	if err != nil {
		return nil, err
	}
	return all, verifyTokens(all, both)
}

// grants are the tokens of a path of two hops, and one for nobody.
func grants(both pair) []grant {
	return []grant{
		{"client to nobody", both.client, nil},
		{"client to server", both.client, both.server},
		{"server to client", both.server, both.client},
	}
}

type grant struct {
	name     string
	from, to *x509svid.SVID
}

// claims are those that the token should have; its text is still to come.
func (g grant) claims() signed {
	one := signed{
		Name: g.name, Signer: g.from.ID.Path()[1:], Subject: g.from.ID.String(), Audience: []string{},
		Expires: g.from.Certificates[0].NotAfter.Unix(),
	}
	if g.to != nil {
		one.Audience = append(one.Audience, g.to.ID.String())
	}
	return one
}

// sign makes the tokens with the SDK's generator.
func sign(both pair) (all []signed, err error) {
	for _, grant := range grants(both) {
		var info credentials.AuthInfo
		if grant.to != nil {
			info = linkTo(grant.to)
		}
		one := grant.claims()
		if one.Text, _, err = spiffejwt.TokenGeneratorFunc(grant.from, forever)(info); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func linkTo(svid *x509svid.SVID) credentials.TLSInfo {
	return credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: svid.Certificates}}
}

// verifyTokens checks signatures and claims, and that the stock policies let a path of these tokens pass.
func verifyTokens(all []signed, both pair) error {
	byName := map[string]string{}
	for _, one := range all {
		byName[one.Name] = one.Text
	}
	var differences []error
	for _, grant := range grants(both) {
		if err := verifyToken(byName[grant.name], grant); err != nil {
			differences = append(differences, fmt.Errorf("token %s: %w", grant.name, err))
		}
	}
	if err := errors.Join(differences...); err != nil {
		return err
	}

	policies, err := opa.PoliciesByFileMask("etc/nsm/opa/common/.*.rego", "etc/nsm/opa/server/.*.rego")
	if err != nil {
		return err
	}
	if len(policies) == 0 {
		return errors.New("there are no stock policies")
	}
	path := &networkservice.Path{Index: 1, PathSegments: []*networkservice.PathSegment{
		{Token: byName["client to server"]}, {Token: byName["server to client"]},
	}}
	ctx := peer.NewContext(context.Background(), &peer.Peer{AuthInfo: linkTo(both.client)})
	for _, policy := range policies {
		if err := policy.Check(ctx, path); err != nil {
			return fmt.Errorf("policy %s: %w", policy.Name(), err)
		}
	}
	return nil
}

func verifyToken(text string, grant grant) error {
	claims, want := jwt.RegisteredClaims{}, grant.claims()
	key := func(*jwt.Token) (any, error) { return grant.from.Certificates[0].PublicKey, nil }
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}))
	if _, err := parser.ParseWithClaims(text, &claims, key); err != nil {
		return err
	}
	if claims.Subject != want.Subject || !slices.Equal(claims.Audience, want.Audience) ||
		claims.ExpiresAt == nil || claims.ExpiresAt.Unix() != want.Expires {
		return fmt.Errorf("claims %+v and should %+v", claims, want)
	}
	return nil
}
