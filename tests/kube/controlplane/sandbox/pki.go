package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const validFor = 30 * 24 * time.Hour

// makeAuthorities writes ca, apiserver and service-account keys: FOLDER ADDRESS.
func makeAuthorities(arguments []string) error {
	if err := hasArgument(arguments, 2, "pki FOLDER ADDRESS"); err != nil {
		return err
	}
	folder, address := arguments[0], arguments[1]
	authority := certificate("rayml test plane")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	if err := issue(folder, "ca", authority, nil); err != nil {
		return err
	}
	server := certificate("kube-apiserver")
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.IPAddresses = []net.IP{net.ParseIP(address), net.IPv4(127, 0, 0, 1)}
	server.DNSNames = []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	if err := issueBy(folder, "apiserver", server); err != nil {
		return err
	}
	return issue(folder, "service-account", certificate("service-account"), nil)
}

// makeClient writes a client's certificate and key: FOLDER FILE USER GROUP...
func makeClient(arguments []string) error {
	client := certificate(arguments[2])
	client.Subject.Organization = arguments[3:]
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return issueBy(arguments[0], arguments[1], client)
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(validFor),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// issueBy signs with the authority of the folder.
func issueBy(folder, name string, template *x509.Certificate) error {
	pair, err := os.ReadFile(filepath.Join(folder, "ca.key"))
	if err != nil {
		return err
	}
	block, _ := pem.Decode(pair)
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return err
	}
	return issue(folder, name, template, key)
}

// issue writes NAME.crt, NAME.key and NAME.pub; without a signer, the key signs its own certificate.
func issue(folder, name string, template *x509.Certificate, signer *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	parent := template
	if signer == nil {
		signer = key
	} else if parent, err = readCertificate(filepath.Join(folder, "ca.crt")); err != nil {
		return err
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	blocks := map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: signed},
		".key": {Type: "EC PRIVATE KEY", Bytes: private},
		".pub": {Type: "PUBLIC KEY", Bytes: public},
	}
	for suffix, block := range blocks {
		if err := os.WriteFile(filepath.Join(folder, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	return x509.ParseCertificate(block.Bytes)
}
