package core

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

func TestWindow(t *testing.T) {
	zones := func(name string) (*time.Location, error) { return time.FixedZone(name, 2*3600), nil }
	for _, c := range []struct {
		window, zone, now string
		want              bool
	}{
		{"22:00-04:00", "", "21:59", false},
		{"22:00-04:00", "", "22:00", true},
		{"22:00-04:00", "", "03:59", true},
		{"22:00-04:00", "", "04:00", false},
		{"08:30-09:00", "", "08:45", true},
		{"08:30-09:00", "", "09:00", false},
		{"22:00-04:00", "Europe/Helsinki", "20:30", true}, // 22:30 there
		{"22:00-04:00", "Europe/Helsinki", "02:30", false},
		{"22:00", "", "22:00", false}, // a window needs both ends
		{"25:00-04:00", "", "02:00", false},
	} {
		now, err := time.Parse("15:04", c.now)
		if err != nil {
			t.Fatal(err)
		}
		m := New(Config{Node: "n", Server: 1, Incarnation: 1, Wall: now, Location: zones}, 0, nil)
		if got, _ := m.window(spec.Failback{Window: c.window, Timezone: c.zone}); got != c.want {
			t.Errorf("%s in %s %s: %v", c.now, c.window, c.zone, got)
		}
	}
}
