package confdb

import (
	"fmt"
	"time"
)

// NodeCert is a node's certificate, as the node sees it by its own time of day.
type NodeCert struct {
	Until time.Time `json:"until"`
	Phase CertPhase `json:"phase,omitempty"`
}

// CertPhase is how near a certificate's end is.
type CertPhase string

// Phases of a certificate.
const (
	CertGood    CertPhase = ""
	CertEnding  CertPhase = "ending"  // less than a third of its life is left
	CertExpired CertPhase = "expired" // its end is past
)

// TellCert is a node's word of its certificate.
type TellCert struct {
	Node string   `json:"node"` // id
	Cert NodeCert `json:"cert"`
}

// tellCert notes it, and tells when the phase is another.
func (s *State) tellCert(c Command) Result {
	t := c.TellCert
	n := s.Nodes[t.Node]
	if n == nil {
		return refuse(CodeNotFound, "no node has id %s", t.Node)
	}
	var was CertPhase
	if n.Cert != nil {
		was = n.Cert.Phase
	}
	cert := t.Cert
	n.Cert = &cert
	if cert.Phase == was {
		return Result{}
	}
	name, until := n.Spec.Name, cert.Until.UTC().Format(time.RFC3339)
	switch cert.Phase {
	case CertEnding:
		s.event(c, s.aboutNode(t.Node, KindCertEnding, fmt.Sprintf("the certificate of node %s ends at %s: clusterplan apply renews it", name, until)))
	case CertExpired:
		s.event(c, s.aboutNode(t.Node, KindCertExpired, fmt.Sprintf("the certificate of node %s has expired at %s: its groups go on, but nobody can call its API over the network until clusterplan apply renews it", name, until)))
	case CertGood:
		s.event(c, s.aboutNode(t.Node, KindCertRenewed, fmt.Sprintf("node %s has a new certificate, until %s", name, until)))
	default:
		n.Cert.Phase = was // a newer agent's word: the date is all that is understood
	}
	return Result{}
}
