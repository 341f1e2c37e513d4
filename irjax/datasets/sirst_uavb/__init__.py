"""SIRST-UAVB."""
