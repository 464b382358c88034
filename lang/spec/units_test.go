package spec

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDurations(t *testing.T) {
	for _, tc := range []struct {
		in, want string // "" : refused
	}{
		{"60s", "1m"}, {"1m", "1m"}, {"6h", "6h"}, {"7d", "168h"}, {"1.5d", "36h"}, {"90m", "1h30m"}, {"1h0m5s", "1h0m5s"}, {"500ms", "500ms"}, {"0s", "0s"}, {"0", "0s"}, {" 5s ", "5s"}, {"10h", "10h"}, {"1h10m", "1h10m"},
		{"5", ""}, {"", ""}, {"-1s", ""}, {"-1d", ""}, {"1w", ""}, {"d", ""}, {"1e300d", ""}, {"NaNd", ""},
	} {
		d, err := ParseDuration(tc.in)
		if (err != nil) != (tc.want == "") || err == nil && d.String() != tc.want {
			t.Errorf("%q: %s, %v, want %q", tc.in, d, err, tc.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want int64 // -1: refused
		text string
	}{
		{"512MiB", 512 << 20, "512MiB"}, {"2GiB", 2 << 30, "2GiB"}, {"1.5GiB", 3 << 29, "1536MiB"}, {"10MB", 10_000_000, "10000000B"}, {"4096", 4096, "4KiB"}, {"0", 0, "0B"},
		{"1 KiB", 1024, "1KiB"}, {"9223372036854775807", math.MaxInt64, "9223372036854775807B"}, {"9007199254740993", 9007199254740993, "9007199254740993B"},
		{"", -1, ""}, {"x", -1, ""}, {"-1", -1, ""}, {"1e30", -1, ""}, {"9223372036854775807KiB", -1, ""}, {"NaN", -1, ""}, {"10 meters", -1, ""},
	} {
		n, err := ParseSize(tc.in)
		if (err != nil) != (tc.want < 0) || err == nil && (n != tc.want || FormatSize(n) != tc.text) {
			t.Errorf("%q: %d, %v, written %s", tc.in, n, err, FormatSize(n))
		}
	}
	if n, err := ParseQuantity("cpu", "0.25"); n != 250 || err != nil {
		t.Errorf("a quarter of a processor: %d, %v", n, err)
	}
	if _, err := ParseQuantity("cpu", "4GiB"); err == nil {
		t.Error("4GiB of processors")
	}
}

// What is written is read back as the same.
func TestUnitsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "duration"))
		if back, err := ParseDuration(d.String()); err != nil || back != d {
			t.Fatalf("%s: %s, %v", d, back, err)
		}
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "size") >> rapid.IntRange(0, 62).Draw(t, "shift")
		if back, err := ParseSize(FormatSize(n)); err != nil || back != n {
			t.Fatalf("%s: %d, %v", FormatSize(n), back, err)
		}
		what := rapid.SampledFrom([]string{"cpu", "memory", "disks"}).Draw(t, "what")
		n >>= 12
		if back, err := ParseQuantity(what, Quantity(what, n)); err != nil || back != n {
			t.Fatalf("%s %s: %d, %v", what, Quantity(what, n), back, err)
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"1d", "1h", "0.1ms", "1e5d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if back, err := ParseDuration(d.String()); err != nil || back != d || d < 0 {
			t.Fatalf("%q: %d written %s read %d, %v", s, d, d, back, err)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"1GiB", "0.5kB", "12", "1e3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if back, err := ParseSize(FormatSize(n)); err != nil || back != n || n < 0 {
			t.Fatalf("%q: %d written %s read %d, %v", s, n, FormatSize(n), back, err)
		}
	})
}

func TestWindow(t *testing.T) {
	from, to, err := ParseWindow("22:00-04:30")
	if err != nil || from != 22*time.Hour || to != 4*time.Hour+30*time.Minute {
		t.Errorf("%s %s %v", from, to, err)
	}
	for _, bad := range []string{"", "22:00", "24:00-01:00", "10:00-10:00", "a-b"} {
		if _, _, err := ParseWindow(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestIPAddress(t *testing.T) {
	for in, want := range map[string]string{"127.0.0.1": "127.0.0.1", "10.0.0.5/24": "10.0.0.5", "::ffff:127.0.0.1": "127.0.0.1", "fd00::1/64": "fd00::1"} {
		if a, err := IPAddress(in); err != nil || a.String() != want {
			t.Errorf("%s: %s, %v", in, a, err)
		}
	}
	for _, bad := range []string{"", "localhost", "127.0.0", "10.0.0.0/33", "10.0.0.0/24", "fe80::1%eth0"} {
		if _, err := IPAddress(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// The graph search finds a cycle if and only if there is one, and what it
// calls a cycle is one.
func TestCycles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "n")
		edges := make([][]int, n)
		for range rapid.IntRange(0, 12).Draw(t, "edges") {
			from := rapid.IntRange(0, n-1).Draw(t, "from")
			edges[from] = append(edges[from], rapid.IntRange(0, n-1).Draw(t, "to"))
		}
		found := cycles(edges)
		for _, c := range found {
			for i, v := range c {
				next := c[(i+1)%len(c)]
				ok := false
				for _, w := range edges[v] {
					ok = ok || w == next
				}
				if !ok {
					t.Fatalf("%v is no cycle of %v", c, edges)
				}
			}
		}
		// There is none if vertices without edges can be taken away until all are gone.
		left := n
		gone := make([]bool, n)
		for again := true; again; {
			again = false
			for v := range edges {
				free := !gone[v]
				for _, w := range edges[v] {
					free = free && gone[w]
				}
				if free {
					gone[v], again = true, true
					left--
				}
			}
		}
		if (left == 0) != (len(found) == 0) {
			t.Fatalf("%v: found %v, %d vertices lie on or before cycles", edges, found, left)
		}
	})
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"n1": true, "n-a": true, "_x": true, "a.b": true, "A": true, strings.Repeat("a", 64): true,
		"": false, ".": false, "..": false, ".x": false, "-x": false, "a/b": false, "a b": false, "ö": false, strings.Repeat("a", 65): false,
	} {
		if ValidName(name) != want {
			t.Errorf("ValidName(%q) is %v", name, !want)
		}
	}
}
