package ownpages

import (
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What was let go of is there again when it is needed, and resident memory is
// less for it.
func TestDrop(t *testing.T) {
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
	Drop()
	if after := resident(); after >= before {
		t.Errorf("%d pages before, %d after", before, after)
	}
	use()
}

// Of a file's mappings those that were written have no other copy, also where they
// can't be written any more, as what a position-independent program is told of its
// place when it is loaded.
func TestMappings(t *testing.T) {
	const text = `00400000-013ce000 r-xp 00001000 fe:00 1234 /usr/bin/the program
Size:              16184 kB
Rss:               13960 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me 
013ce000-0226d000 r--p 00fcf000 fe:00 1234 /usr/bin/the program
Anonymous:           148 kB
0226d000-02329000 rw-p 01e6e000 fe:00 1234 /usr/bin/the program
Anonymous:             0 kB
c000000000-c004000000 rw-p 00000000 00:00 0 
Anonymous:         65536 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:00 99 /usr/bin/the program of another
Anonymous:             0 kB
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]
`
	got, err := mappings(strings.NewReader(text), "/usr/bin/the program")
	want := []mapping{{0x400000, 0x13ce000, false}, {0x13ce000, 0x226d000, true}, {0x226d000, 0x2329000, true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}
