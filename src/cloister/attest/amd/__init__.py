"""What AMD SEV-SNP evidence is made of: report, endorsement certificates, certificate table, launch digest.

Sources, cited in the files: AMD 56860 (SEV-SNP Firmware ABI, revision 1.58), AMD 57230 (VCEK Certificate and KDS
Interface), AMD 58369 (VLEK), AMD 56421 (GHCB, revision 2.03).
"""
