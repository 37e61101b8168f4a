"""Cycles, traffic and energy of a model on a neural processing unit (NPU): a systolic array, a
vector unit, buffers and DRAM.
"""
