package core

import (
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/clusterplan/clusterplan/lang/spec"
)

func TestWindow(t *testing.T) {
	day := "2026-06-10T" // summer: Helsinki is 3 hours ahead, Stockholm 2
	for _, c := range []struct {
		window, zone, now string
		open              bool
		next              time.Duration // until it opens
	}{
		{"22:00-04:00", "", day + "21:59:00Z", false, time.Minute},
		{"22:00-04:00", "", day + "22:00:00Z", true, 0},
		{"22:00-04:00", "", day + "03:59:59Z", true, 0},
		{"22:00-04:00", "", day + "04:00:00Z", false, 18 * time.Hour},
		{"08:30-09:00", "", day + "08:45:00Z", true, 0},
		{"08:30-09:00", "", day + "09:00:00Z", false, 23*time.Hour + 30*time.Minute},
		{"22:00-04:00", "Europe/Helsinki", day + "19:30:00Z", true, 0}, // 22:30 there
		{"22:00-04:00", "Europe/Helsinki", day + "01:30:00Z", false, 17*time.Hour + 30*time.Minute},
		{"22:00-22:30", "America/New_York", day + "02:10:00Z", true, 0}, // the evening before
		{"22:00", "", day + "22:00:00Z", false, 0},                      // a window needs both ends
		{"25:00-04:00", "", day + "02:00:00Z", false, 0},
		{"22:00-04:00", "No/Where", day + "22:00:00Z", false, 0},

		// The clock is put forward at 01:00 UTC: 02:00 to 03:00 is not there.
		{"01:30-03:30", "Europe/Stockholm", "2026-03-29T00:29:00Z", false, time.Minute},
		{"01:30-03:30", "Europe/Stockholm", "2026-03-29T00:59:00Z", true, 0}, // 01:59
		{"01:30-03:30", "Europe/Stockholm", "2026-03-29T01:00:00Z", true, 0}, // 03:00, a minute later
		{"01:30-03:30", "Europe/Stockholm", "2026-03-29T01:29:00Z", true, 0},
		{"01:30-03:30", "Europe/Stockholm", "2026-03-29T01:30:00Z", false, 22 * time.Hour},
		{"02:10-02:50", "Europe/Stockholm", "2026-03-29T00:59:00Z", false, 11 * time.Minute}, // looks in vain then
		{"02:10-02:50", "Europe/Stockholm", "2026-03-29T01:10:00Z", false, 23 * time.Hour},
		{"02:10-02:50", "Europe/Stockholm", "2026-03-30T00:10:00Z", true, 0}, // the day after

		// The clock is put back at 01:00 UTC: 02:00 to 03:00 comes twice.
		{"02:10-02:50", "Europe/Stockholm", "2026-10-25T00:10:00Z", true, 0},
		{"02:10-02:50", "Europe/Stockholm", "2026-10-25T00:50:00Z", false, 20 * time.Minute}, // and again
		{"02:10-02:50", "Europe/Stockholm", "2026-10-25T01:10:00Z", true, 0},
		{"02:10-02:50", "Europe/Stockholm", "2026-10-25T01:50:00Z", false, 23*time.Hour + 20*time.Minute},
		{"22:00-02:30", "Europe/Stockholm", "2026-10-25T00:40:00Z", false, 20*time.Hour + 20*time.Minute},
		{"22:00-02:30", "Europe/Stockholm", "2026-10-25T01:20:00Z", true, 0},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		m := New(Config{Node: "n", Server: 1, Incarnation: 1, Wall: now, Location: time.LoadLocation}, 0, nil)
		open, next := m.window(spec.Failback{Window: c.window, Timezone: c.zone})
		if open != c.open || next != c.next {
			t.Errorf("%s at %s %s: %v, opens in %v; want %v, %v", c.window, c.now, c.zone, open, next, c.open, c.next)
		}
	}
}
