package httpstore

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/clusterplan/clusterplan/statefile"
)

type request struct {
	method, url string
	body        []byte
}

type answer struct {
	code int
	to   string // of a redirection
	body []byte
}

// passing tells whether the next try may fare better.
func (a *answer) passing() bool {
	return a.code >= 500 || a.code == http.StatusTooManyRequests || a.code == http.StatusRequestTimeout
}

func (a *answer) done() bool {
	return a.code == http.StatusOK || a.code == http.StatusCreated || a.code == http.StatusNoContent
}

func (a *answer) busy() bool { return a.code == http.StatusConflict || a.code == http.StatusLocked }

// refused says what the server's answer means.
func (a *answer) refused() error {
	name := fmt.Sprintf("the server answered %d %s", a.code, http.StatusText(a.code))
	switch {
	case a.code == http.StatusUnauthorized:
		return fmt.Errorf("%s: set %sUSERNAME and %sPASSWORD to those of somebody who may use this state", name, EnvPrefix, EnvPrefix)
	case a.code == http.StatusForbidden:
		return fmt.Errorf("%s: the user in %sUSERNAME may not do this; ask who looks after the server", name, EnvPrefix)
	case a.code >= 300 && a.code < 400:
		where := ""
		if a.to != "" {
			where = " to " + shown(a.to)
		}
		return fmt.Errorf("%s%s: redirections are not followed; write the address itself into the backend block", name, where)
	case a.code == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%s: raise the server's limit for a request's size", name)
	case a.code == http.StatusMethodNotAllowed, a.code == http.StatusNotImplemented:
		return fmt.Errorf("%s: it takes another method here; see update_method, lock_method and unlock_method of the backend block", name)
	}
	return errors.New(name)
}

// answerLimit is what is read of an answer that is no state.
const answerLimit = 1 << 20

// shown is an address for people: a query often has a token in it, and errors end in
// logs.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that is none"
	}
	if u.RawQuery != "" {
		u.RawQuery = "..."
	}
	return u.Redacted()
}

// once asks once. An error: whether the server did it is not known.
func (s *Store) once(ctx context.Context, r request) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if len(r.body) > 0 {
		sum := md5.Sum(r.body) // Terraform's servers check it: a body that was changed on the way
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Content-MD5", base64.StdEncoding.EncodeToString(sum[:]))
	}
	if s.set.Username != "" || s.set.Password != "" {
		req.SetBasicAuth(s.set.Username, s.set.Password)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var where *url.Error // names all of the address, with what a query may have in it
		if errors.As(err, &where) {
			err = fmt.Errorf("%s %s: %w", r.method, shown(r.url), where.Err)
		}
		return nil, err
	}
	defer resp.Body.Close()
	limit := int64(answerLimit)
	if r.method == http.MethodGet && r.url == s.set.Address && resp.StatusCode == http.StatusOK {
		limit = statefile.Limit
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the answer was cut off: %w", err)
	case int64(len(body)) > limit && limit == statefile.Limit:
		return nil, fmt.Errorf("%w: the answer has more than %d bytes", statefile.ErrDamaged, limit)
	case int64(len(body)) > limit:
		body = body[:limit] // a page that goes with an error, of which nothing is needed
	}
	return &answer{code: resp.StatusCode, to: resp.Header.Get("Location"), body: body}, nil
}

// ask asks, and again where the server or the way to it fails.
func (s *Store) ask(ctx context.Context, r request) (a *answer, err error) {
	for try := 0; ; try++ {
		a, err = s.once(ctx, r)
		if err == nil && !a.passing() || try == s.set.RetryMax || ctx.Err() != nil {
			return a, err
		}
		if stop := s.opts.pause(ctx, s.wait(try)); stop != nil {
			return a, errors.Join(stop, err)
		}
	}
}

func (s *Store) wait(try int) time.Duration {
	return min(s.set.RetryWaitMin<<min(try, 10), s.set.RetryWaitMax)
}
