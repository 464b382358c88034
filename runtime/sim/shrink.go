package sim

// Shrink leaves faults out of a run that broke an invariant, as long as it
// breaks one still, in at most so many runs of it. What operators do and what
// happens by chance between the processes stays, though it may turn out
// differently; the shorter story is as true as the longer one.
func Shrink(r Report, runs int) Report {
	if len(r.Violations) == 0 || r.Config.Crashes || r.Config.NoFault {
		return r
	}
	keep := r.Config.Keep
	if keep == nil {
		keep = []int{}
		for i := range r.Numbers {
			keep = append(keep, i+1)
		}
	}
	for size := max(len(keep)/2, 1); len(keep) > 0; {
		shorter := false
		for at := 0; at < len(keep) && runs > 0; {
			cfg := r.Config
			cfg.Keep = append(append([]int{}, keep[:at]...), keep[min(at+size, len(keep)):]...)
			runs--
			if tried := Run(cfg); len(tried.Violations) > 0 {
				r, keep, shorter = tried, cfg.Keep, true
			} else {
				at += size
			}
		}
		if runs <= 0 || size == 1 && !shorter {
			break
		}
		size = max(size/2, 1)
	}
	return r
}
