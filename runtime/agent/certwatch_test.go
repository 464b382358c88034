package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A certificate's year: the database hears when a third of it is left and when
// it is over, also where it can't be told at first, and at once of a new one;
// the log says it again each day.
func TestCertificateEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const year = 365 * 24 * time.Hour
		begin := time.Now()
		life := certLife{from: begin, until: begin.Add(year)}
		var said []string
		var known *confdb.NodeCert
		refuse := 0
		var lines strings.Builder
		w := &certWatch{
			log:     slog.New(slog.NewTextHandler(&lines, nil)),
			renewed: make(chan struct{}, 1),
			current: func() certLife { return life },
			told: func(context.Context) (*confdb.NodeCert, bool, error) {
				return known, time.Since(begin) > time.Minute, nil // until then it is no member
			},
			tell: func(_ context.Context, c confdb.NodeCert) error {
				if refuse > 0 {
					refuse--
					return errors.New("no quorum")
				}
				known = &c
				said = append(said, time.Since(begin).Truncate(2*time.Hour).String()+" "+string(c.Phase))
				return nil
			},
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx) }()
		time.Sleep(year / 2)
		refuse = 3
		time.Sleep(year/2 + 3*24*time.Hour + 90*time.Minute) // between two looks
		synctest.Wait()
		if want := []string{"0s ", "5840h0m0s ending", "8760h0m0s expired"}; strings.Join(said, ";") != strings.Join(want, ";") {
			t.Errorf("told %q, want %q", said, want)
		}
		if n := strings.Count(lines.String(), "has expired"); n != 4 { // at once, and on each of three days
			t.Errorf("the log says it %d times in three days", n)
		}
		life = certLife{from: time.Now(), until: time.Now().Add(year)}
		w.renewed <- struct{}{}
		synctest.Wait()
		if known.Phase != confdb.CertGood || !known.Until.Equal(life.until) || len(said) != 4 {
			t.Errorf("after the renewal: %+v, %q", known, said)
		}
		stop()
		<-done
	})
}
