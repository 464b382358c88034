package monitor

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
)

// What was given back is there again when it is needed, and resident memory
// is less for it.
func TestTrim(t *testing.T) {
	resident := func() int {
		b, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.Fields(string(b))[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	use := func() {
		s := httptest.NewServer(http.NotFoundHandler())
		defer s.Close()
		resp, err := http.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Fatal(resp.Status)
		}
	}
	use()
	before := resident()
	Trim()
	if after := resident(); after >= before {
		t.Errorf("%d pages before, %d after", before, after)
	}
	use()
}
