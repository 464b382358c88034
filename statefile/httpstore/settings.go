package httpstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Settings of a backend; the names are Terraform's.
type Settings struct {
	Address       string
	UpdateMethod  string // POST
	LockAddress   string
	LockMethod    string // LOCK
	UnlockAddress string // LockAddress
	UnlockMethod  string // UNLOCK
	Username      string
	Password      string
	CA            string        // PEM; "": the system's
	RetryMax      int           // 2
	RetryWaitMin  time.Duration // 1s
	RetryWaitMax  time.Duration // 30s
}

// EnvPrefix stands before a setting's name, in capitals, in the environment.
const EnvPrefix = "CLUSTERPLAN_HTTP_"

// Parse takes the settings of a definition, and from the environment what that leaves out.
func Parse(given map[string]string, getenv func(string) string) (Settings, error) {
	var err error
	text := func(name, other string) string {
		if v := given[name]; v != "" {
			return v
		}
		if v := getenv(EnvPrefix + strings.ToUpper(name)); v != "" {
			return v
		}
		return other
	}
	number := func(name string, other int) int {
		v := text(name, strconv.Itoa(other))
		n, bad := strconv.Atoi(v)
		if bad != nil || n < 0 || n > 1000 {
			err = errors.Join(err, fmt.Errorf("%s is %q, and has to be a whole number from 0 to 1000", name, v))
		}
		return n
	}
	if given["password"] != "" {
		return Settings{}, errors.New("a password does not stand in a definition; set " + EnvPrefix + "PASSWORD")
	}
	if v := text("skip_cert_verification", "false"); v != "false" {
		return Settings{}, errors.New("skip_cert_verification would send the password to whoever answers; give the server's authority instead, in client_ca_certificate_pem")
	}
	s := Settings{
		Address: text("address", ""), UpdateMethod: text("update_method", http.MethodPost),
		LockAddress: text("lock_address", ""), LockMethod: text("lock_method", "LOCK"), UnlockMethod: text("unlock_method", "UNLOCK"),
		Username: text("username", ""), Password: getenv(EnvPrefix + "PASSWORD"), CA: text("client_ca_certificate_pem", ""),
		RetryMax:     number("retry_max", 2),
		RetryWaitMin: time.Duration(number("retry_wait_min", 1)) * time.Second,
		RetryWaitMax: time.Duration(number("retry_wait_max", 30)) * time.Second,
	}
	s.UnlockAddress = text("unlock_address", s.LockAddress)
	if err == nil {
		err = s.check()
	}
	return s, err
}

// ParseEnvironment is Parse with this process's environment.
func ParseEnvironment(given map[string]string) (Settings, error) { return Parse(given, os.Getenv) }

func (s *Settings) check() error {
	if s.Address == "" {
		return errors.New("it has no address; give one, or set " + EnvPrefix + "ADDRESS")
	}
	if s.LockAddress == "" {
		return errors.New("it has no lock_address: without a lock two applies at once would write over one another; give one, or set " + EnvPrefix + "LOCK_ADDRESS")
	}
	for _, one := range []struct{ name, text string }{{"address", s.Address}, {"lock_address", s.LockAddress}, {"unlock_address", s.UnlockAddress}} {
		u, err := url.Parse(one.text)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			return fmt.Errorf("%s is no URL that a state can lie at; write https://host/path", one.name) // not its text: it may hold a password
		case u.User != nil:
			return fmt.Errorf("%s has a user in it; set %sUSERNAME and %sPASSWORD instead", one.name, EnvPrefix, EnvPrefix)
		case u.Fragment != "":
			return fmt.Errorf("%s has a part behind #, which is never sent; take that out", one.name)
		}
	}
	if s.RetryWaitMin > s.RetryWaitMax {
		return errors.New("retry_wait_min is more than retry_wait_max")
	}
	return nil
}

// Shown is the address for people.
func (s *Settings) Shown() string { return shown(s.Address) }

// client makes one that follows no redirection: a write would become a read on
// the way, and its password go to another server.
func (s *Settings) client() (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 30 * time.Second
	t.DisableCompression = true // what is encrypted does not shrink, and a little answer can't become a large one
	if s.CA != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(s.CA)) {
			return nil, errors.New("client_ca_certificate_pem holds no certificate; it is the text of a PEM file")
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t, Timeout: 5 * time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}
