package spec

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span that a definition names: a Go duration, or whole
// days (`7d`). Its text is canonical, so that `60s` and `1m` are equal bytes.
type Duration time.Duration

// D is the span as package time's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String is the canonical text: Go's, without zero parts (`6h`, not `6h0m0s`).
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDuration.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// ParseDuration reads Go durations and whole or fractional days (`7d`).
// Negative spans are refused.
func ParseDuration(s string) (Duration, error) {
	text := strings.TrimSpace(s)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err == nil && n >= 0 && n*24*float64(time.Hour) < math.MaxInt64 {
			return Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no time span; write a number and a unit, as 500ms, 30s, 15m, 6h or 7d", s)
	}
	return Duration(d), nil
}

var sizeUnits = []struct {
	suffix string
	factor float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseSize reads a size in bytes: `512MiB`, `2GiB`, `10MB`, `4096`.
func ParseSize(s string) (int64, error) {
	text := strings.TrimSpace(s)
	factor := 1.0
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(text, u.suffix); ok {
			text, factor = strings.TrimSpace(n), u.factor
			break
		}
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n < 0 || n*factor >= math.MaxInt64 || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is no size; write a number and a unit, as 512MiB or 2GiB", s)
	}
	return int64(n * factor), nil
}
