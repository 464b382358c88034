package remote

import (
	"cmp"
	"errors"
	"time"

	"github.com/clusterplan/clusterplan/statefile"
)

// Pen works out what is written under a lock. Its methods call put with it, and
// take it for written where that returns nil.
type Pen struct {
	Program string
	Keys    statefile.Keys
	Lock    statefile.LockInfo

	on    *Image // what is there; nil: nothing
	base  statefile.State
	chain statefile.Chain
	begun bool
}

// On has p go on from an image that was loaded.
func (p *Pen) On(i *Image, l *Loaded) { p.on, p.base, p.chain = i, l.Base, l.Journal.Chain }

// Begins tells whether entries begin a run.
func Begins(entries []statefile.Entry) bool {
	for i := range entries {
		if entries[i].Begin != nil {
			return true
		}
	}
	return false
}

// Append adds entries to the journal.
func (p *Pen) Append(entries []statefile.Entry, put func(*Image) error) error {
	chain, begun, lineage := p.chain, p.begun, p.base.Lineage
	next := new(Image)
	if p.on != nil {
		next.State, next.Journal = p.on.State, append([]byte(nil), p.on.Journal...)
	}
	var err error
	for _, e := range entries {
		if e.Time.IsZero() {
			e.Time = time.Now().UTC()
		}
		if e.Begin != nil {
			if lineage == "" {
				lineage = NewID()
			}
			b := *e.Begin
			b.Format, b.Serial, b.Lineage, b.Generation = statefile.FormatVersion, p.base.Serial, lineage, p.Lock.Generation
			b.DigestKey = cmp.Or(p.base.DigestKey, chain.DigestKey(), b.DigestKey)
			b.Holder = &statefile.Holder{Lock: p.Lock.ID, Host: p.Lock.Host, PID: p.Lock.PID}
			e.Begin, begun = &b, true
		}
		if !begun {
			return errors.New("write journal: a run begins with Begin")
		}
		if next.Journal, err = chain.Append(next.Journal, &e, p.Keys); err != nil {
			return err
		}
	}
	next.Lineage = lineage
	if err := put(next); err != nil {
		return err
	}
	p.on, p.chain, p.begun, p.base.Lineage, p.base.DigestKey = next, chain, begun, lineage, chain.DigestKey()
	return nil
}

// Finish makes st the snapshot and ends the journal.
func (p *Pen) Finish(st statefile.State, put func(*Image) error) error {
	st.Serial, st.Lineage = p.base.Serial, p.base.Lineage
	st.DigestKey = cmp.Or(p.base.DigestKey, p.chain.DigestKey(), st.DigestKey)
	return p.finish(st, put)
}

// Replace is Finish with a state that brings its lineage with it.
func (p *Pen) Replace(st statefile.State, put func(*Image) error) error {
	st.Serial = max(st.Serial, p.base.Serial)
	return p.finish(st, put)
}

func (p *Pen) finish(st statefile.State, put func(*Image) error) error {
	st.Program, st.Serial = p.Program, st.Serial+1
	if st.Lineage == "" {
		st.Lineage = NewID()
	}
	if st.DigestKey == "" {
		st.DigestKey = statefile.NewDigestKey()
	}
	data, err := statefile.Marshal(&st)
	if err == nil {
		data, err = p.Keys.Seal(data)
	}
	if err != nil {
		return err
	}
	next := &Image{Lineage: st.Lineage, State: data}
	if err := put(next); err != nil {
		return err
	}
	p.on, p.base, p.begun, p.chain = next, st, false, statefile.Chain{}
	return nil
}

// Reseal writes all anew for those whom the keys name now, if all is wanted: nothing
// was ever in plain.
func (p *Pen) Reseal(all bool, put func(*Image) error) (bool, error) {
	if !all || p.on == nil {
		return false, nil
	}
	next := &Image{Lineage: p.on.Lineage}
	if len(p.on.State) > 0 {
		data, err := statefile.Open(p.Keys, p.on.State)
		if err == nil {
			next.State, err = p.Keys.Seal(data)
		}
		if err != nil {
			return false, err
		}
	}
	var chain statefile.Chain
	if len(p.on.Journal) > 0 {
		j, err := statefile.DecodeJournal(p.on.Journal, p.Keys)
		if err != nil {
			return false, err
		}
		if next.Journal, chain, err = statefile.Recode(j.Entries, cmp.Or(p.base.DigestKey, j.Chain.DigestKey()), p.Keys); err != nil {
			return false, err
		}
	}
	if err := put(next); err != nil {
		return false, err
	}
	p.on, p.chain = next, chain
	return true, nil
}
