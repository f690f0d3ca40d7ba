"""Tests of quintet.formats."""
