package boottime

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestNow(t *testing.T) {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Skip("no /proc/uptime")
	}
	// /proc/uptime is the boot clock too, in hundredths of a second.
	up, err := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	first := Now()
	if second := Now(); second < first {
		t.Fatalf("the clock ran back: %d after %d", second, first)
	}
	if got := float64(first) / 1e9; got < up-0.02 {
		t.Fatalf("Now() = %.3f s, but the host was up %.3f s before that", got, up)
	}
}
